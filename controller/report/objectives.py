"""An objective in plain words, and what a trial showed for each of its goals."""

from __future__ import annotations

from collections.abc import Sequence

from controller.model.experiment import AnyObjective, GoalsObjective, Objective
from controller.model.metrics import METRICS, Metric
from controller.model.run import ParetoSet
from controller.model.trial import GoalEffect, Standing
from controller.report.words import effect_words, more_per_second, percent

STANDING_WORDS: dict[Standing, str] = {
    "": "",
    "better": ": proven better",
    "not-worse": ": not worse",
    "worse": ": worse",
    "undecided": ": undecided",
}


def measure_words(objective: AnyObjective) -> str:
    """What effects are told of: `p50 latency`, `the weighted mean of p50 latency (2) and nginx memory (1)`."""
    if isinstance(objective, GoalsObjective):
        join = ", then " if objective.combine == "lexicographic" else ", "
        return join.join(METRICS[goal.metric].words for goal in objective.goals)
    weights = objective.weights
    if len(weights) == 1:
        return METRICS[next(iter(weights))].words
    return "the weighted mean of " + _listed([f"{_weighed(metric)} ({weights[metric]:g})" for metric in weights])


def _weighed(metric: Metric) -> str:
    return METRICS[metric].cost or METRICS[metric].words


def objective_words(objective: AnyObjective) -> str:
    """`less p50 latency, by at least 3.0 %`; a weighted mean takes throughput as the time that a request takes."""
    if isinstance(objective, GoalsObjective):
        goals = [
            f"{_wanted(goal.metric)} (by at least {_percent(goal.metric, goal.minimum_effect)}; "
            f"{percent(goal.margin)} worse still counts as not worse)"
            for goal in objective.goals
        ]
        if objective.combine == "lexicographic":
            return ", else, with that not worse, ".join(goals)
        return "one of these, and none worse: " + _listed(goals)
    if isinstance(objective, Objective):
        return f"{_wanted(objective.metric)}, by at least {_percent(objective.metric, objective.minimum_effect)}"
    return f"less {measure_words(objective)}, by at least {percent(objective.minimum_effect)}"


def _wanted(metric: Metric) -> str:
    return f"{'more' if METRICS[metric].more_is_better else 'less'} {METRICS[metric].words}"


def _percent(metric: Metric, minimum_effect: float) -> str:
    return percent(more_per_second(minimum_effect) if METRICS[metric].more_is_better else minimum_effect)


def goal_words(goals: Sequence[GoalEffect]) -> list[str]:
    """One line a goal, by its fresh pairs where there are any; empty where the objective is one metric."""
    return [
        effect_words(goal.confirmed_effect or goal.effect, goal.metric) + STANDING_WORDS[goal.standing]
        for goal in goals
    ]


def pareto_words(pareto: ParetoSet) -> str:
    """What is left to choose from in one experiment."""
    text = f"{pareto.experiment}: nothing is better in every way than {_listed(pareto.members)}"
    return f"{text}; {_listed(pareto.dominated)} can be left out" if pareto.dominated else text


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else items[0]
