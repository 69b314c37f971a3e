"""What the live instance is asked after a duet: it is never saturated, and six pairs answer one question."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model.experiment import Experiment
from controller.model.trial import TrialPlan, TrialTiming
from controller.report.words import live_words
from controller.workflow.going_live import go_live, live_plan
from controller.workflow.planning import design_of
from controller.workflow.results import trial_result


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
    result = go_live(nobody, "r-1", plan, kept)
    assert (result.verdict, result.live, result.soak, result.sockets_differ) == ("KEEP", None, None, True)
    assert live_words(result) == (
        "its sockets differ, so it was never switched to and fro under users; committing it re-opens the sockets once"
    )
