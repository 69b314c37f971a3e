"""What the live instance is asked after a duet: it is never saturated, and six pairs answer one question."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.judge.live import LiveJudge
from controller.model.experiment import Experiment
from controller.model.trial import TrialPlan, TrialTiming
from controller.report.words import live_words
from controller.workflow.trial import go_live as checks
from controller.workflow.trial.go_live import go_live
from controller.workflow.trial.phases import live_plan
from controller.workflow.trial.plan import design_of
from controller.workflow.trial.results import trial_result
from tests.unit.judge.judge_trials import pair

STEADY = {"rss_bytes": 40_000_000, "open_files": 30}


def trial(objective: dict[str, object], mode: str = "steady", parameter: str = "nginx_gzip_comp_level") -> TrialPlan:
    experiment = Experiment.model_validate(
        {
            "name": "gzip",
            "question": "Is another level better?",
            "why": "because it may be",
            "risk": {"level": "low", "note": "none"},
            "sources": ["a hunch"],
            "variants": [{"name": "v", "parameters": {parameter: 4}}],
            "workload": {"rate": 40, "requests": [{"path": "/"}], "mode": mode},
            "objective": objective,
        }
    )
    design = design_of(experiment, experiment.variants[0])
    return TrialPlan(
        number=1,
        experiment=experiment,
        variant=experiment.variants[0],
        design=design,
        timing=TrialTiming.of(experiment.timing, design),
        hosts=["h1"],
        seed=7,
        alpha=0.05,
        variants_in_run=1,
    )


@pytest.mark.parametrize(
    ("objective", "asked"),
    [
        ({"metric": "p95"}, {"p95": 1.0}),
        ({"metric": "throughput"}, {"p50": 1.0}),
        ({"combine": "pareto", "goals": [{"metric": "throughput"}, {"metric": "memory"}]}, {"p50": 1.0}),
        (
            {"combine": "weighted", "goals": [{"metric": "throughput", "weight": 2}, {"metric": "memory"}]},
            {"p50": 2.0, "memory": 1.0},
        ),
    ],
)
def test_the_live_instance_is_asked_at_its_rate_for_what_a_rate_can_tell(
    objective: dict[str, object], asked: dict[str, float]
) -> None:
    live = live_plan(trial(objective, mode="saturation"))
    assert (live.experiment.workload.mode, live.experiment.workload.rate) == ("steady", 40)
    assert live.experiment.objective.weights == asked


@pytest.mark.parametrize("parameter", ["nginx_gzip_comp_level", "nginx_reuseport"])
def test_a_saturation_is_a_duet_unless_the_experiment_says_otherwise(parameter: str) -> None:
    assert trial({"metric": "throughput"}, "saturation", parameter).design == "duet"


def test_what_listens_on_other_sockets_is_committed_without_being_tried_on_users_and_that_is_told() -> None:
    plan = trial({"metric": "p95"}, parameter="nginx_reuseport").model_copy(
        update={"sockets_differ": True, "soak_seconds": 30.0}
    )
    kept = trial_result(plan, None, [], reason="proven-gain", note="", seconds=1.0).model_copy(
        update={"verdict": "KEEP"}
    )
    nobody: Any = None  # whoever asked a host would need it
    result = go_live(nobody, "r-1", plan, kept, {})
    assert (result.verdict, result.live, result.soak, result.sockets_differ) == ("KEEP", None, None, True)
    assert live_words(result) == (
        "its sockets differ, so it was never switched to and fro under users; committing it re-opens the sockets once"
    )


@pytest.mark.parametrize("hosts", [1, 6, 7, 12, 40])
def test_every_host_is_seen_live_before_a_duet_goes_on_to_its_soak(hosts: int) -> None:
    names = [f"h{number}" for number in range(1, hosts + 1)]
    plan = trial({"metric": "p95"}).model_copy(update={"hosts": names, "soak_seconds": 10.0})
    check = live_plan(plan)
    judge, taken = LiveJudge(check), []
    for number in range(1, check.timing.maximum_pairs + 1):
        for host in names:
            if not judge.decided:
                taken.append(pair(number, host=host, control={"metrics": STEADY}, variant={"metrics": STEADY}))
                judge.add(taken[-1])
    assert judge.judgement().action == "no-harm" and {each.host for each in taken} == set(names)
    assert len(taken) == max(6, hosts)


def test_a_host_that_is_a_pair_behind_costs_one_more_pair_each_not_all_that_may_be_tried() -> None:
    names = [f"h{number}" for number in range(1, 13)]
    check = live_plan(trial({"metric": "p95"}).model_copy(update={"hosts": names}))
    judge, count = LiveJudge(check), 0
    order = [(number, host) for number in (1, 2) for host in names[:-1]] + [(1, "h12")]
    for number, host in order:
        judge.add(pair(number, host=host, control={"metrics": STEADY}, variant={"metrics": STEADY}))
        count += 1
        if judge.decided:
            break
    assert judge.judgement().action == "no-harm" and count == len(order)


def test_the_live_check_asks_by_the_probe_also_what_users_have_shown() -> None:
    plan = trial({"metric": "p95"})
    users = plan.model_copy(update={"experiment": plan.experiment.model_copy(update={"source": "live"})})
    assert live_plan(users).experiment.source == "probe"


def test_a_host_without_a_pair_on_the_live_instance_is_no_pass_and_is_named() -> None:
    check = live_plan(trial({"metric": "p95"}).model_copy(update={"hosts": ["h1", "h2"]}))
    judge = LiveJudge(check)
    for number in range(1, check.timing.maximum_pairs + 1):
        judge.add(pair(number, control={"metrics": STEADY}, variant={"metrics": STEADY}))
    said = judge.judgement()
    assert (said.action, said.reason) == ("revert", "guardrail-missing-data") and said.note.endswith("none of h2")


def test_nothing_is_switched_where_the_baseline_is_another_one_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = trial({"metric": "p95"}).model_copy(update={"soak_seconds": 10.0})
    kept = trial_result(plan, None, [], reason="proven-gain", note="", seconds=1.0).model_copy(
        update={"verdict": "KEEP"}
    )
    monkeypatch.setattr(checks, "on_each_host", lambda _hosts, _ask: ({"h1": {"confirmed": "c" * 16}}, {}))
    monkeypatch.setattr(checks, "check_live", lambda *_: pytest.fail("users were switched"))
    context: Any = SimpleNamespace(fleet=SimpleNamespace(hosts=[]), run_directory=Path)
    result = go_live(context, "r-1", plan, kept, {"h1": "a" * 16})
    assert (result.verdict, result.reason) == ("REVERT", "host-failed")
    assert "h1: its baseline is cccccccccccccccc by now" in result.note
