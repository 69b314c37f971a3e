"""Goals that are each judged by themselves: what may be kept, what is told, and how seldom it is wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import pytest

from controller.judge.decision import Outcome, Rule
from controller.judge.goals import GoalsDecision
from controller.judge.verdict import Judge
from controller.model.experiment import GoalsObjective
from controller.model.metrics import Metric
from controller.model.trial import Pair
from tests.unit.judge.judge_trials import pair, plan

METRICS: list[Metric] = ["p50", "memory", "cpu_per_request"]
MARGIN = math.log1p(0.05)
TRIALS = 250


def objective(combine: str, count: int = 2, minimum_effect: float = 0.03) -> dict[str, object]:
    goals = [{"metric": metric, "minimum_effect": minimum_effect, "margin": 0.05} for metric in METRICS[:count]]
    return {"combine": combine, "goals": goals}


def decision(combine: str, count: int = 2, *, patient: bool = True, minimum_effect: float = 0.03) -> GoalsDecision:
    asked = objective(combine, count, minimum_effect)
    return GoalsDecision(Rule.of(plan(objective=asked)), GoalsObjective.model_validate(asked), patient=patient)


def end(folding: GoalsDecision, draw: Callable[[], Mapping[Metric, float]]) -> Outcome:
    while True:
        outcome = folding.fold(draw())
        if outcome.action in {"keep", "revert"}:
            return outcome


def steady(folding: GoalsDecision, *gains: float) -> tuple[Outcome, list[str]]:
    told = dict(zip(METRICS, gains, strict=False))
    outcome = end(folding, lambda: told)
    return outcome, [folding.standing(metric) for metric in told]


@pytest.mark.parametrize(
    ("combine", "gains", "reason", "standing"),
    [
        ("lexicographic", (0.2, 0.0), "proven-gain", ["better", "not-worse"]),
        ("lexicographic", (0.2, -0.5), "proven-gain", ["better", "worse"]),
        ("lexicographic", (0.0, 0.2), "proven-gain", ["not-worse", "better"]),
        ("lexicographic", (-0.02, 0.3), "proven-gain", ["not-worse", "better"]),
        ("lexicographic", (-0.2, 0.5), "slower", ["worse", "better"]),
        ("lexicographic", (0.0, 0.0), "futile", ["not-worse", "not-worse"]),
        ("pareto", (0.2, 0.0), "proven-gain", ["better", "not-worse"]),
        ("pareto", (0.0, 0.2), "proven-gain", ["not-worse", "better"]),
        ("pareto", (0.2, -0.2), "trade-off", ["better", "worse"]),
        ("pareto", (-0.2, 0.2), "trade-off", ["worse", "better"]),
        ("pareto", (-0.2, 0.0), "slower", ["worse", "not-worse"]),
        ("pareto", (0.0, 0.0), "futile", ["not-worse", "not-worse"]),
    ],
)
def test_what_is_clear_is_decided_and_told_for_every_goal(combine, gains, reason, standing):
    outcome, told = steady(decision(combine), *gains)
    assert outcome.reason == reason
    if reason in {"proven-gain", "trade-off"}:
        assert told == standing
    else:
        assert set(told) <= {*standing, "undecided"}


def test_each_of_three_goals_must_be_spared_in_a_pareto_set():
    assert steady(decision("pareto", 3), 0.2, 0.0, -0.02)[0].reason == "proven-gain"
    assert steady(decision("pareto", 3), 0.2, 0.0, -0.2)[0].reason == "trade-off"
    assert steady(decision("lexicographic", 3), 0.2, 0.0, -0.2)[0].reason == "proven-gain"


def test_the_evidence_asked_for_grows_with_the_goals_that_could_decide():
    assert [decision("pareto", count).rule.threshold for count in (2, 3)] == pytest.approx([200.0, 300.0])
    assert Rule.of(plan(objective=objective("lexicographic", 3), variants=10)).threshold == pytest.approx(600.0)


def test_a_goal_that_is_lost_on_fresh_pairs_is_not_confirmed():
    folding, count = decision("lexicographic"), iter(range(1000))

    def draw() -> dict[Metric, float]:
        next(count)
        return {"p50": -0.06 if folding.confirming else 0.0, "memory": 0.2}

    outcome = end(folding, draw)
    assert (outcome.reason, "p50" in outcome.note) == ("not-confirmed", True)


def test_live_traffic_does_not_pay_for_telling_what_cannot_be_kept_any_more():
    on_shadows, live = decision("pareto", patient=True), decision("pareto", patient=False)
    slow_proof = {"p50": -0.5, "memory": 0.0}
    end(on_shadows, lambda: slow_proof)
    end(live, lambda: slow_proof)
    assert live.pairs < on_shadows.pairs


def test_invalid_pairs_count_towards_the_limit_only():
    folding = decision("pareto")
    for _ in range(39):
        assert folding.fold(None).action == "continue"
    assert folding.fold(None).reason == "undecided"
    assert folding.better.value == 1.0


def test_a_spoilt_pair_shows_harm_to_a_goal_and_proves_none():
    folding = decision("pareto")
    for _ in range(20):
        outcome = folding.fold({"p50": -0.3, "memory": -0.3}, spoilt=True)
        if outcome.action == "revert":
            break
    assert (outcome.reason, folding.better.value, folding.searched) == ("slower", 1.0, [])


def _pair(number: int, gains: Mapping[Metric, float]) -> Pair:
    metrics = {"rss_bytes": round(4e7 * math.exp(-gains["memory"])), "cpu_us_per_request": 80.0}
    return pair(number, gains["p50"], variant={"metrics": metrics})


def test_the_judge_tells_the_goal_that_decides_and_each_goals_effect():
    judge = Judge(plan(objective=objective("lexicographic")))
    for number in range(1, 40):
        judge.fold(_pair(number, {"p50": 0.0, "memory": 0.2}))
        if judge.decided:
            break
    judgement = judge.judgement()
    assert (judgement.reason, judgement.goal) == ("proven-gain", "memory")
    assert judgement.confirmed_effect.estimate == pytest.approx(1 - math.exp(-0.2), abs=1e-4)
    assert [(goal.metric, goal.standing) for goal in judgement.goals] == [("p50", "not-worse"), ("memory", "better")]
    assert judgement.goals[0].confirmed_effect.estimate == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("combine", ["lexicographic", "pareto"])
@pytest.mark.parametrize("together", [0.0, 0.9])
def test_alike_configurations_are_kept_at_most_once_in_a_hundred_whatever_the_goals_share(combine, together):
    draw, kept = random.Random(3), 0

    def alike() -> dict[Metric, float]:
        shared, sign = draw.gauss(0, 0.1), draw.choice([1, -1])
        return {m: sign * (together * shared + (1 - together) * draw.gauss(0, 0.1)) for m in METRICS}

    for _ in range(TRIALS):
        kept += end(decision(combine, 3, minimum_effect=0.0), alike).action == "keep"
    assert kept / TRIALS <= 0.01


@pytest.mark.parametrize("combine", ["lexicographic", "pareto"])
def test_a_loss_of_the_margin_is_called_not_worse_at_most_once_in_a_hundred(combine):
    """The other goal gains a lot: only the proof that nothing is lost stands between this and a KEEP."""
    draw = random.Random(9)
    kept = 0
    for _ in range(TRIALS):
        lost = {"p50": -MARGIN, "memory": 0.5}
        outcome = end(decision(combine), lambda lost=lost: {m: gain + draw.gauss(0, 0.03) for m, gain in lost.items()})
        kept += outcome.action == "keep"
    assert kept / TRIALS <= 0.01
