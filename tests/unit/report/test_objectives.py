"""Objectives and goals in plain words, in all three places where a run is told."""

from __future__ import annotations

from typing import get_args

from rich.console import Console

from controller.model.experiment import Goal, GoalsObjective, Objective, WeightedGoal, WeightedObjective
from controller.model.metrics import Metric
from controller.model.run import ParetoSet, RunPlan, RunResult
from controller.model.trial import Effect, GoalEffect
from controller.report.objectives import goal_words, objective_words, pareto_words
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


def test_goals_that_are_judged_by_themselves_say_in_which_order_and_what_may_be_lost() -> None:
    goals = [Goal(metric="p50"), Goal(metric="memory", minimum_effect=0.1, margin=0.05)]
    assert objective_words(GoalsObjective(combine="lexicographic", goals=goals)) == (
        "less p50 latency (by at least 3.0 %; 3.0 % worse still counts as not worse), else, with that not worse, "
        "less nginx memory (by at least 10.0 %; 5.0 % worse still counts as not worse)"
    )
    assert objective_words(GoalsObjective(combine="pareto", goals=goals)).startswith(
        "one of these, and none worse: less p50 latency "
    )


def test_a_goal_says_how_it_stands() -> None:
    better, lost = (
        goal.model_copy(update={"standing": standing})
        for goal, standing in zip(GOALS, ("better", "worse"), strict=True)
    )
    assert goal_words([better, lost]) == [f"{TOLD[0]}: proven better", f"{TOLD[1]}: worse"]


def test_a_pareto_set_says_what_is_left_to_choose_from(plan: RunPlan, result: RunResult) -> None:
    pareto = ParetoSet(experiment="buffers", members=["baseline", "large"], dominated=["small"])
    words = "buffers: nothing is better in every way than baseline and large; small can be left out"
    assert pareto_words(pareto) == words
    result = result.model_copy(update={"pareto": [pareto]})
    console = Console(width=120, record=True)
    console.print(run_text(plan, result))
    assert words in console.export_text()
    assert words in report_page(plan, result, {})


def test_every_metric_has_words_of_its_own() -> None:
    wanted = {objective_words(Objective(metric=metric)) for metric in get_args(Metric)}
    assert len(wanted) == len(get_args(Metric))
    assert all(len(words.split()) >= 7 for words in wanted)


def test_throughput_is_wanted_and_told_as_more_requests_a_second() -> None:
    wanted = Objective(metric="throughput", minimum_effect=0.2)
    assert objective_words(wanted) == "more requests a second at saturation, by at least 25.0 %"
    gained = GoalEffect(metric="throughput", effect=Effect(estimate=0.2, low=-0.25, high=0.5))
    assert goal_words([gained]) == ["throughput 25.0 % higher (-20.0 to 100 %)"]
    lost = GoalEffect(metric="throughput", effect=Effect(estimate=-0.25, low=-1.0, high=0.2))
    assert goal_words([lost]) == ["throughput 20.0 % lower (-25.0 to 50.0 %)"]


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
