"""Objectives and goals in plain words, in all three places where a run is told."""

from __future__ import annotations

import pytest
from rich.console import Console

from controller.model.experiment import Metric, Objective, WeightedGoal, WeightedObjective
from controller.model.run import RunPlan, RunResult
from controller.model.trial import Effect, GoalEffect
from controller.report.objectives import goal_words, objective_words
from controller.report.page import report_page
from controller.report.text import run_text, verdict_table

WEIGHTED = WeightedObjective(
    combine="weighted", goals=[WeightedGoal(metric="p50", weight=2), WeightedGoal(metric="memory")]
)
GOALS = [
    GoalEffect(metric="p50", effect=Effect(estimate=0.3, low=0.2, high=0.4)),
    GoalEffect(metric="memory", confirmed_effect=Effect(estimate=-0.1, low=-0.2, high=-0.05)),
]
TOLD = ["p50 30.0 % lower (20.0 to 40.0 %)", "memory 10.0 % higher (5.0 to 20.0 %)"]


def test_an_objective_says_what_it_wants_less_of_and_how_much() -> None:
    assert objective_words(Objective(metric="p99", minimum_effect=0.1)) == "less p99 latency, by at least 10.0 %"
    assert objective_words(WEIGHTED) == (
        "less the weighted mean of p50 latency (2) and nginx memory (1), by at least 3.0 %"
    )


@pytest.mark.parametrize("metric", ["p50", "p90", "p95", "p99", "mean", "cpu_per_request", "memory"])
def test_every_metric_has_words_of_its_own(metric: Metric) -> None:
    assert len(objective_words(Objective(metric=metric)).split()) >= 7


def test_a_goal_is_told_by_its_fresh_pairs_where_there_are_any() -> None:
    assert goal_words(GOALS) == TOLD


def test_terminal_and_page_tell_every_goal(plan: RunPlan, result: RunResult) -> None:
    experiment = plan.trials[0].experiment.model_copy(update={"objective": WEIGHTED})
    plan = plan.model_copy(
        update={"trials": [plan.trials[0].model_copy(update={"experiment": experiment}), *plan.trials[1:]]}
    )
    kept = result.trials[0].model_copy(update={"objective": "weighted", "goals": GOALS})
    result = result.model_copy(update={"trials": [kept, *result.trials[1:]]})
    console = Console(width=120, record=True)
    console.print(verdict_table(result))
    console.print(run_text(plan, result))
    page = report_page(plan, result, {})
    for words in ["weighted mean 38.2 % lower", *TOLD]:
        assert words in console.export_text(clear=False)
        assert words in page
    assert "the designs disagree" not in page
    assert "it agrees with the duet, and is a gain by itself" in page
