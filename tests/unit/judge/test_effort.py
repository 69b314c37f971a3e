"""How many pairs a decision takes is foreseen as it turns out."""

from __future__ import annotations

import math

import numpy
import pytest

from benchmarks.decision_rules import _log_evidence, ratchet
from controller.judge.decision import Rule
from controller.judge.effort import growth, pairs_to_keep, pairs_to_prove

RULE = Rule(threshold=100.0, least_gain=0.03, minimum_pairs=5, maximum_pairs=400, confirm_pairs=5)


@pytest.mark.parametrize("gain", [0.03, 0.1])
@pytest.mark.parametrize("noise", [0.005, 0.02, 0.06, 0.1])
def test_the_expected_pairs_are_those_of_simulated_trials(gain: float, noise: float) -> None:
    gains = gain + noise * numpy.random.default_rng(1).standard_normal((300, 400))
    proven = _log_evidence(gains) >= math.log(RULE.threshold)
    taken = numpy.where(proven.any(axis=1), proven.argmax(axis=1) + 1, 400).mean()
    assert pairs_to_prove(gain, noise, RULE) == pytest.approx(taken, rel=0.15)


def test_the_pairs_until_a_keep_are_those_of_the_judge() -> None:
    gains = 0.1 + 0.05 * numpy.random.default_rng(2).standard_normal((300, 405))
    taken = numpy.mean([decided.pairs for decided in ratchet(gains, RULE) if decided.kept])
    assert pairs_to_keep(0.1, 0.05, RULE) == pytest.approx(taken, rel=0.15)


def test_more_noise_never_takes_fewer_pairs_and_a_larger_gain_never_more() -> None:
    noises = [0.001 * 1.5**step for step in range(14)]
    for gain in (0.01, 0.03, 0.1, 0.3):
        pairs = [pairs_to_prove(gain, noise, RULE) for noise in noises]
        assert pairs == sorted(pairs)
    for noise in noises:
        pairs = [pairs_to_prove(gain, noise, RULE) for gain in (0.3, 0.1, 0.03, 0.01)]
        assert pairs == sorted(pairs)


def test_no_gain_is_never_proven_and_no_pair_more_than_doubles_the_evidence() -> None:
    assert pairs_to_prove(0.0, 0.02, RULE) == math.inf
    assert pairs_to_keep(0.0001, 0.1, RULE) == math.inf
    assert growth(5.0, 0.1) <= math.log(2)
