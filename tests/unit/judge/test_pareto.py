"""The Pareto set: only what is clearly better in a way, and clearly worse in none, puts another one out."""

from __future__ import annotations

import pytest

from controller.judge.pareto import pareto_sets
from controller.model.experiment import Experiment
from controller.model.trial import Effect, GoalEffect, TrialResult
from tests.unit.judge.judge_trials import plan

PARETO = {"combine": "pareto", "goals": [{"metric": "p50"}, {"metric": "memory"}]}


def experiment(objective: dict[str, object]) -> Experiment:
    return plan(objective=objective).experiment


def result(variant: str, p50: float, memory: float, *, reason: str = "undecided", width: float = 0.01) -> TrialResult:
    goals = [
        GoalEffect(metric=metric, effect=Effect(estimate=each, low=each - width, high=each + width))
        for metric, each in (("p50", p50), ("memory", memory))
    ]
    return TrialResult.model_validate(
        {
            "trial": 1, "experiment": "gzip", "variant": variant, "hosts": ["h1"], "verdict": "REVERT",
            "reason": reason, "objective": "p50", "design": "duet", "effect": None, "confirmed_effect": None,
            "goals": goals, "evidence": 1.0, "threshold": 200.0, "pairs": 9, "requests": 1, "errors": 0,
            "seconds": 1.0, "probing_seconds": 1.0,
        }
    )  # fmt: skip


def members(*results: TrialResult) -> tuple[list[str], list[str]]:
    (found,) = pareto_sets([experiment(PARETO)], results)
    return found.members, found.dominated


def test_a_trade_off_stays_beside_the_baseline():
    assert members(result("a", 0.2, -0.2)) == (["baseline", "a"], [])


def test_what_is_better_in_both_puts_all_others_out():
    assert members(result("a", 0.2, 0.2), result("b", 0.1, 0.1)) == (["a"], ["baseline", "b"])


def test_better_in_one_and_alike_in_the_other_is_better():
    assert members(result("a", 0.2, 0.005)) == (["a"], ["baseline"])
    assert members(result("a", -0.2, 0.005)) == (["baseline"], ["a"])


def test_intervals_that_overlap_put_nothing_out():
    assert members(result("a", 0.2, 0.2, width=0.3), result("b", 0.1, 0.1, width=0.3))[1] == []


@pytest.mark.parametrize("reason", ["guardrail-body", "worse-live", "measurement-invalid", "host-failed"])
def test_what_may_not_be_chosen_is_no_member_and_puts_nothing_out(reason):
    assert pareto_sets([experiment(PARETO)], [result("a", 0.5, 0.5, reason=reason)]) == []


def test_other_objectives_have_no_pareto_set():
    for objective in ({"metric": "p50"}, PARETO | {"combine": "lexicographic"}):
        assert pareto_sets([experiment(objective)], [result("a", 0.5, 0.5)]) == []
