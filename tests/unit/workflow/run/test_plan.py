"""What a run will do is fixed before it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.model.errors import BadInput
from controller.model.experiment import Experiment, Request, Risk, Timing, Variant, Workload
from controller.model.fleet import Fleet, FleetSettings, Host, Trials
from controller.model.run import RunPlan
from controller.workflow.fleet.quarantine import hosts_left
from controller.workflow.run.plan import draw_plan, new_run_id
from controller.workflow.trial.plan import (
    check_fleet_design,
    design_of,
    estimate_seconds,
    planned_trial,
)


def experiment(name: str, *parameters: str, timing: Timing | None = None) -> Experiment:
    return Experiment(
        name=name,
        question="Is it faster?",
        why="because it might be",
        risk=Risk(level="low", note="none known"),
        sources=["a page"],
        variants=[Variant(name=f"v{n}", parameters={parameter: 1}) for n, parameter in enumerate(parameters)],
        workload=Workload(rate=50, requests=[Request(path="/")]),
        timing=timing or Timing(),
    )


def fleet(hosts: int, *, per_trial: int = 0) -> Fleet:
    return Fleet(
        name="prod",
        inventory=Path("inventory/prod"),
        settings=FleetSettings(trials=Trials(hosts=per_trial)),
        hosts=[
            Host(name=f"web-{n}", address="127.0.0.1", key_file=Path("key"), known_hosts=Path("known"))
            for n in range(1, hosts + 1)
        ],
    )


def test_every_variant_becomes_a_trial_that_knows_how_many_there_are() -> None:
    experiments = [experiment("one", "nginx_a", "nginx_b"), experiment("two", "nginx_c")]
    plan = draw_plan("r-1", fleet(3), experiments, seed=7, created_at="2026-11-24T00:00:00Z")
    assert [(trial.number, trial.experiment.name, trial.variant.name) for trial in plan.trials] == [
        (1, "one", "v0"),
        (2, "one", "v1"),
        (3, "two", "v0"),
    ]
    assert {trial.variants_in_run for trial in plan.trials} == {3}
    assert plan.trials[0].hosts == ["web-1", "web-2", "web-3"]


def test_a_fleet_may_keep_hosts_out_of_its_trials() -> None:
    plan = draw_plan("r-1", fleet(3, per_trial=2), [experiment("one", "nginx_a")], seed=7, created_at="now")
    assert plan.trials[0].hosts == ["web-1", "web-2"]
    assert plan.hosts == ["web-1", "web-2", "web-3"]


def test_a_search_judges_by_what_was_planned() -> None:
    edited = Trials(hosts=2, alpha=0.01, soak_seconds=30)
    of = fleet(3).model_copy(update={"settings": FleetSettings(trials=edited)})
    asked = experiment("one", "nginx_a")
    plan = draw_plan("r-1", of, [asked], seed=7, created_at="now", strategy="bayes")
    recorded = RunPlan.model_validate_json(plan.model_dump_json())
    trial = planned_trial(recorded, 4, asked, asked.variants[0], variants=3)
    assert (trial.hosts, trial.alpha, trial.soak_seconds, trial.seed) == (["web-1", "web-2"], 0.01, 30, 7)
    assert trial == plan.trials[0].model_copy(update={"number": 4, "variants_in_run": 3})


def test_a_duet_is_chosen_unless_only_the_live_instance_would_show_the_effect() -> None:
    one, two = experiment("one", "nginx_gzip_comp_level"), experiment("two", "nginx_worker_cpu_affinity")
    assert design_of(one, one.variants[0]) == "duet"
    assert design_of(two, two.variants[0]) == "switchback"


@pytest.mark.parametrize("parameter", ["nginx_reuseport", "nginx_listen_backlog", "nginx_ipv6", "nginx_demo_sites"])
def test_what_opens_and_closes_sockets_is_a_duet(parameter: str) -> None:
    asked = experiment("one", parameter)
    assert design_of(asked, asked.variants[0]) == "duet"
    beside = experiment("two", "nginx_worker_cpu_affinity").model_copy(update={"requires": {parameter: True}})
    assert design_of(beside, beside.variants[0]) == "duet"


def test_the_timing_of_the_experiment_wins_over_the_designs() -> None:
    chosen = experiment("one", "nginx_a", timing=Timing(block_seconds=4.0))
    trial = draw_plan("r-1", fleet(1), [chosen], seed=7, created_at="now").trials[0]
    assert (trial.timing.block_seconds, trial.timing.burn_in_seconds) == (4.0, 0.1)


def test_hosts_that_probe_together_shorten_a_trial() -> None:
    one, three = (
        estimate_seconds(draw_plan("r-1", fleet(n), [experiment("one", "nginx_a")], seed=7, created_at="now").trials[0])
        for n in (1, 3)
    )
    assert three[1] < one[1]
    assert one[0] < one[1]


def test_a_run_id_tells_its_time() -> None:
    assert new_run_id("2026-11-24T05:30:00Z", 1).startswith("r-20261124-053000-")
    assert new_run_id("2026-11-24T05:30:00Z", 1) != new_run_id("2026-11-24T05:30:00Z", 2)


def test_a_trial_runs_on_the_first_hosts_that_are_left() -> None:
    plan = draw_plan("r-1", fleet(4, per_trial=2), [experiment("one", "nginx_a")], seed=7, created_at="now")
    (planned,) = plan.trials
    assert hosts_left(plan, planned, dict.fromkeys(plan.hosts, "a")) == planned
    assert hosts_left(plan, planned, {"web-1": "a", "web-3": "a", "web-4": "a"}).hosts == ["web-1", "web-3"]
    assert hosts_left(plan, planned, {"web-3": "a"}).hosts == ["web-3"]


def hosts_with_hosts(*, source: str = "probe") -> Experiment:
    return Experiment.model_validate(experiment("one", "nginx_a").model_dump() | {"design": "fleet", "source": source})


def test_hosts_are_compared_with_hosts_only_where_there_are_two() -> None:
    check_fleet_design(fleet(2), [hosts_with_hosts()], "first-winner")
    for alone in (fleet(1), fleet(3, per_trial=1)):
        with pytest.raises(BadInput, match="needs at least 2"):
            check_fleet_design(alone, [hosts_with_hosts()], "first-winner")


def test_hosts_are_compared_with_hosts_in_no_race() -> None:
    with pytest.raises(BadInput, match="not for --strategy race"):
        check_fleet_design(fleet(4), [hosts_with_hosts()], "race")
    check_fleet_design(fleet(1), [experiment("one", "nginx_a")], "race")


def test_more_hosts_do_not_shorten_a_trial_that_compares_them() -> None:
    two, nine = (
        estimate_seconds(draw_plan("r-1", fleet(n), [hosts_with_hosts()], seed=7, created_at="now").trials[0])
        for n in (2, 9)
    )
    assert two == nine


def test_live_traffic_is_measured_on_the_live_instance_in_longer_blocks_and_waits_for_its_log() -> None:
    live = Experiment.model_validate(experiment("one", "nginx_a").model_dump() | {"source": "live"})
    trial, probed = (
        draw_plan("r-1", fleet(1), [each], seed=7, created_at="now").trials[0]
        for each in (
            live,
            live.model_copy(
                update={
                    "source": "probe",
                    "design": "switchback",
                    "timing": Timing(block_seconds=2, burn_in_seconds=0.3),
                }
            ),
        )
    )
    assert (trial.design, trial.timing.block_seconds, trial.timing.burn_in_seconds) == ("switchback", 10.0, 1.0)
    assert estimate_seconds(trial)[0] > 5 * estimate_seconds(probed)[0]
