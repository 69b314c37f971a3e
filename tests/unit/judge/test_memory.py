"""Memory as the objective: steady figures, many of them exactly alike, few of them independent."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from controller.judge.decision import Decision, Rule
from controller.judge.evidence import SignProcess, effect
from controller.judge.verdict import judge_trial
from tests.unit.judge.judge_trials import pair, plan

PAGE = 4096
RSS = 12_000_000
# With no minimum effect nothing but the evidence stands between an A/A and a KEEP.
STRICT = Rule.of(plan(metric="memory", minimum_effect=0.0))
TRIALS = 1200


def taking(control: int | None, variant: int | None, number: int = 1):
    """A pair whose variant is slower, whatever it takes."""
    return pair(number, -0.5, control={"metrics": {"rss_bytes": control}}, variant={"metrics": {"rss_bytes": variant}})


def test_less_memory_is_proven_whatever_the_latency_does():
    slower = [taking(RSS, RSS * 3 // 4, number) for number in range(1, 15)]
    judgement = judge_trial(plan(metric="memory"), slower)
    assert judgement.reason == "proven-gain"
    assert judgement.confirmed_effect.estimate == pytest.approx(0.25)


@pytest.mark.parametrize(("control", "variant"), [(None, RSS), (RSS, None), (0, RSS), (RSS, 0)])
def test_memory_that_is_not_told_is_never_a_pass(control, variant):
    judgement = judge_trial(plan(metric="memory"), [taking(control, variant)])
    assert (judgement.action, judgement.reason) == ("revert", "guardrail-missing-data")


def test_equal_figures_are_evidence_for_neither_side():
    process = SignProcess()
    for number in [0.3, 0.0, 0.0, -0.1, 0.0]:
        process.add(number)
    untied = SignProcess()
    untied.add(0.3)
    untied.add(-0.1)
    assert process.value == untied.value
    tied = judge_trial(plan(metric="memory"), [taking(RSS, RSS, number) for number in range(1, 6)])
    assert (tied.evidence, tied.evidence_slower, tied.effect.estimate) == (1.0, 1.0, 0.0)


def test_an_interval_with_many_ties_holds_no_difference():
    mostly_alike = effect([0.2 if number % 3 == 0 else 0.0 for number in range(30)])
    assert mostly_alike.low == 0.0 < mostly_alike.high


def _pages(draw: random.Random) -> Iterator[float]:
    """A page more or less, now and then."""
    while True:
        yield PAGE / RSS * draw.choice([0, 0, 0, 1, 1, 2, 3])


def _one_instance_is_larger(draw: random.Random) -> Iterator[float]:
    """One of the two shadow instances always takes 2 % more; which arm runs on it is drawn."""
    while True:
        yield math.log(1.02) + PAGE / RSS * draw.randrange(3)


def _sticky(draw: random.Random) -> Iterator[float]:
    """A heap that grew stays grown: what differs between the instances changes slowly, and then by a lot."""
    differs = 0.0
    while True:
        if draw.random() < 0.05:
            differs = draw.choice([0.0, 0.01, 0.3])
        yield differs


@pytest.mark.parametrize("world", [_pages, _one_instance_is_larger, _sticky])
def test_an_a_a_of_memory_is_kept_in_less_than_one_trial_in_a_hundred(
    world: Callable[[random.Random], Iterator[float]],
):
    draw = random.Random(41)
    kept = 0
    for _ in range(TRIALS):
        decision = Decision(STRICT)
        for size in islice(world(draw), STRICT.planned_pairs):
            outcome = decision.add(size if draw.random() < 0.5 else -size)
            if outcome.action in {"keep", "revert"}:
                break
        kept += outcome.action == "keep"
    assert kept / TRIALS <= 0.01
