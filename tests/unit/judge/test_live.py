"""The live check asks for no harm, not for proof."""

from __future__ import annotations

import math
import random

import pytest

from controller.judge.decision import Rule
from controller.judge.live import LiveDecision

RULE = Rule(threshold=100.0, least_gain=0.03, minimum_pairs=6, maximum_pairs=18, confirm_pairs=0)


def outcome(*gains: float | None) -> tuple[str, str | None, int]:
    """Action, reason and pairs at the end of these gains."""
    decision = LiveDecision(RULE)
    for number, gain in enumerate(gains, 1):
        result = decision.add(gain)
        if result.action != "continue":
            return result.action, result.reason, number
    return "continue", None, len(gains)


def test_six_valid_pairs_without_harm_are_enough() -> None:
    assert outcome(*[0.0, 0.05, -0.05, 0.02, -0.01, 0.01]) == ("no-harm", None, 6)


def test_a_small_loss_within_the_noise_of_the_live_instance_passes() -> None:
    assert outcome(*[-0.08, 0.05, -0.07, 0.04, -0.06, 0.01])[0] == "no-harm"


def test_a_clear_loss_ends_it_as_soon_as_it_is_proven() -> None:
    action, reason, pairs = outcome(*[-math.log(2.0)] * 12)
    assert (action, reason) == ("revert", "worse-live")
    assert pairs <= 6


def test_a_loss_beyond_the_margin_does_not_pass() -> None:
    assert outcome(*[0.05, -0.4, -0.4, 0.05, -0.3, -0.05] * 3)[:2] == ("revert", "worse-live")


def test_a_loss_that_more_pairs_do_not_show_was_noise() -> None:
    unlucky = [0.05, -0.4, -0.4, 0.05, -0.4, -0.1]
    assert outcome(*unlucky)[0] == "continue"
    assert outcome(*unlucky, *[0.02, -0.02] * 6) == ("no-harm", None, 18)


def test_a_small_gain_seldom_looks_like_harm_on_a_noisy_instance() -> None:
    """2 % better, 17 % of noise a pair: of so few pairs one trial in twelve would have looked like harm."""
    rng = random.Random(3)
    ends = [outcome(*(rng.gauss(0.02, 0.17) for _ in range(18))) for _ in range(2000)]
    assert sum(end[1] == "worse-live" for end in ends) < 0.02 * len(ends)


def test_a_loss_of_a_quarter_does_not_pass_on_a_noisy_instance() -> None:
    rng = random.Random(4)
    ends = [outcome(*(rng.gauss(-math.log(1.25), 0.17) for _ in range(18))) for _ in range(2000)]
    assert sum(end[0] == "no-harm" for end in ends) < 0.05 * len(ends)


@pytest.mark.parametrize("invalid", [1, 6])
def test_invalid_pairs_are_measured_again(invalid: int) -> None:
    assert outcome(*[None] * invalid, *[0.01] * 6) == ("no-harm", None, 6 + invalid)


def test_harm_that_shows_in_spoilt_pairs_does_not_pass() -> None:
    decision = LiveDecision(RULE)
    ends = [decision.add(-0.3, spoilt=True) for _ in range(5)]
    assert (ends[-1].reason, decision.searched) == ("worse-live", [])
    passing = LiveDecision(RULE)
    assert [passing.add(0.3, spoilt=True).action for _ in range(5)] == ["continue"] * 5


def test_too_few_valid_pairs_are_no_pass() -> None:
    assert outcome(*[None] * 13, *[0.01] * 5) == ("revert", "guardrail-missing-data", 18)
