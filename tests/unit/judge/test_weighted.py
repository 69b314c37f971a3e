"""Several goals as one number: the weighted mean of their gains is judged as any gain is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.judge.gain import gains, weighted
from controller.judge.verdict import Judge, judge_trial
from controller.model.blocks import Block
from controller.model.trial import Pair
from tests.unit.judge.judge_trials import pair, plan

OBJECTIVE = {
    "combine": "weighted",
    "goals": [{"metric": "p50", "weight": 2}, {"metric": "memory", "weight": 1}],
    "minimum_effect": 0.03,
}
RSS = 40_000_000
A_A_TRIALS = 400


def both(number: int, p50: float, memory: float) -> Pair:
    """A pair with these gains."""
    return pair(number, p50, variant={"metrics": {"rss_bytes": round(RSS * math.exp(-memory))}})


def judged(pairs: list[Pair]):
    judge = Judge(plan(objective=OBJECTIVE))
    for each in pairs:
        judge.fold(each)
        if judge.decided:
            break
    return judge.judgement()


def test_the_weighted_mean_is_kept_and_every_goal_is_told():
    judgement = judged([both(number, 0.1, 0.4) for number in range(1, 30)])
    assert judgement.reason == "proven-gain"
    assert judgement.confirmed_effect.estimate == pytest.approx(1 - math.exp(-(2 * 0.1 + 0.4) / 3), abs=1e-4)
    p50, memory = judgement.goals
    assert (p50.metric, memory.metric) == ("p50", "memory")
    assert p50.effect.estimate == pytest.approx(1 - math.exp(-0.1), abs=1e-4)
    assert memory.confirmed_effect.estimate == pytest.approx(1 - math.exp(-0.4), abs=1e-4)


def test_one_goal_pays_for_another_by_its_weight():
    assert judged([both(number, 0.2, -0.1) for number in range(1, 30)]).reason == "proven-gain"
    assert judged([both(number, -0.1, 0.1) for number in range(1, 30)]).reason == "slower"
    assert judged([both(number, -0.1, 0.2) for number in range(1, 30)]).reason == "futile"


def test_no_guardrail_is_bought_off_by_a_goal_that_gains():
    doubled = [both(number, 0.9, -math.log(2)) for number in range(1, 30)]
    assert judged(doubled).reason == "guardrail-memory"


def test_a_goal_that_is_not_told_is_missing_data():
    judgement = judge_trial(plan(objective=OBJECTIVE), [pair(1, 0.3, control={"metrics": {"rss_bytes": 0}})])
    assert (judgement.reason, judgement.note) == ("guardrail-missing-data", "h1, pair 1: no memory in both arms")


def test_a_single_objective_tells_no_goals():
    assert judge_trial(plan(), [pair(1, 0.3)]).goals == []


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.01, 100), st.floats(0.01, 100))
def test_swapping_the_arms_turns_the_sign_and_nothing_else(p50, memory, weight, other):
    weights = {"p50": weight, "memory": other}
    one = both(1, p50, memory)
    turned = Pair(host=one.host, number=1, control=_as(one.variant, "control"), variant=_as(one.control, "variant"))
    straight = weighted(gains(one, weights, "switchback"), weights)
    assert weighted(gains(turned, weights, "switchback"), weights) == -straight


def _as(block: Block, arm: str) -> Block:
    return block.model_copy(update={"arm": arm})


def test_goals_that_move_together_are_kept_no_more_often_when_the_arms_are_alike():
    """What both arms live through moves latency and memory at once, in drifts and bursts; the coin turns both."""
    draw = random.Random(5)
    kept = 0
    for _ in range(A_A_TRIALS):
        judge, weather = Judge(plan(objective=OBJECTIVE | {"minimum_effect": 0.0})), 0.0
        for number in range(1, 46):
            weather = 0.9 * weather + draw.gauss(0, 0.05)
            sign = draw.choice([1, -1])
            burst = 0.5 if draw.random() < 0.1 else 0.0
            judge.fold(both(number, sign * (weather + burst), sign * (0.5 * weather + draw.gauss(0, 0.01))))
            if judge.decided:
                break
        kept += judge.judgement().action == "keep"
    assert kept / A_A_TRIALS <= 0.01
