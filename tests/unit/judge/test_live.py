"""The live check asks for no harm, not for proof."""

from __future__ import annotations

import math

import pytest

from controller.judge.decision import Rule
from controller.judge.live import LiveDecision

RULE = Rule(threshold=100.0, least_gain=0.03, minimum_pairs=6, maximum_pairs=12, confirm_pairs=0)


def outcome(*gains: float | None) -> tuple[str, str | None, int]:
    """Action, reason and pairs at the end of these gains."""
    decision = LiveDecision(RULE)
    for number, gain in enumerate(gains, 1):
        result = decision.add(gain)
        if result.action != "continue":
            return result.action, result.reason, number
    return "continue", None, len(gains)


def test_six_valid_pairs_without_harm_are_enough() -> None:
    assert outcome(*[0.0, 0.05, -0.05, 0.02, -0.01, 0.01]) == ("keep", "proven-gain", 6)


def test_a_small_loss_within_the_noise_of_the_live_instance_passes() -> None:
    assert outcome(*[-0.08, 0.05, -0.07, 0.04, -0.06, 0.01])[0] == "keep"


def test_a_clear_loss_ends_it_as_soon_as_it_is_proven() -> None:
    action, reason, pairs = outcome(*[-math.log(2.0)] * 12)
    assert (action, reason) == ("revert", "worse-live")
    assert pairs <= 6


def test_a_loss_beyond_the_margin_does_not_pass() -> None:
    assert outcome(0.05, -0.4, -0.4, 0.05, -0.4, -0.4)[:2] == ("revert", "worse-live")


@pytest.mark.parametrize("invalid", [1, 6])
def test_invalid_pairs_are_measured_again(invalid: int) -> None:
    assert outcome(*[None] * invalid, *[0.01] * 6) == ("keep", "proven-gain", 6 + invalid)


def test_too_few_valid_pairs_are_no_pass() -> None:
    assert outcome(*[None] * 7, *[0.01] * 5) == ("revert", "guardrail-missing-data", 12)
