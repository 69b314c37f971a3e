import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.judge.decision import Decision, Rule
from controller.judge.evidence import SignProcess, estimate, log_gain
from tests.unit.judge.judge_trials import plan

RULE = Rule.of(plan())
GAIN = 0.3


def fold(gains, rule=RULE):
    """The decision and the outcomes after each gain, up to the verdict."""
    decision, outcomes = Decision(rule), []
    for gain in gains:
        outcomes.append(decision.add(gain))
        if outcomes[-1].action in {"keep", "revert"}:
            break
    return decision, outcomes


def last(gains, rule=RULE):
    return fold(gains, rule)[1][-1]


@pytest.mark.parametrize(
    ("variants", "threshold", "fewest"), [(1, 100, 7), (5, 100, 7), (6, 120, 7), (10, 200, 8), (32, 640, 10)]
)
def test_the_threshold_is_a_hundred_or_the_variants_over_alpha_whichever_is_more(variants, threshold, fewest):
    rule = Rule.of(plan(variants=variants))
    assert rule.threshold == pytest.approx(threshold)
    assert rule.fewest_pairs == fewest


def test_a_clear_gain_is_proven_then_confirmed_on_fresh_pairs_then_kept():
    decision, outcomes = fold([GAIN] * 50)
    assert [outcome.action for outcome in outcomes] == ["continue"] * 7 + ["confirm"] * 6 + ["keep"]
    assert outcomes[-1].reason == "proven-gain"
    assert (len(decision.searched), len(decision.fresh)) == (8, 6)


def test_evidence_just_below_the_threshold_proves_nothing():
    process = SignProcess()
    for _ in range(8):
        process.add(GAIN)
    reached = Rule(**{**vars(RULE), "threshold": process.value * 0.999})
    missed = Rule(**{**vars(RULE), "threshold": process.value * 1.001})
    assert fold([GAIN] * 8, reached)[1][-1].action == "confirm"
    assert fold([GAIN] * 8, missed)[1][-1].action == "continue"


def test_fewer_than_the_minimum_of_pairs_prove_nothing():
    assert last([GAIN] * 19, Rule.of(plan(minimum_pairs=20))).action == "continue"
    assert last([GAIN] * 20, Rule.of(plan(minimum_pairs=20))).action == "confirm"


def test_a_proven_gain_below_the_minimum_effect_is_never_kept():
    outcomes = fold([log_gain(0.029)] * 60)[1]
    assert {outcome.action for outcome in outcomes} == {"continue", "revert"}
    assert (outcomes[-1].reason, outcomes[-1].note) == (
        "futile",
        "a gain is proven, but smaller than the minimum effect",
    )


def test_a_gain_of_exactly_the_minimum_effect_is_enough():
    assert last([log_gain(0.03)] * 60).reason == "proven-gain"
    assert last([log_gain(0.0300001)] * 60).reason == "proven-gain"


def test_fresh_pairs_that_do_not_hold_the_minimum_effect_revert():
    outcome = last([GAIN] * 8 + [0.02] * 60)
    assert (outcome.action, outcome.reason) == ("revert", "not-confirmed")
    assert last([GAIN] * 8 + [0.031] * 60).action == "keep"


def test_the_fresh_estimate_owes_nothing_to_the_pairs_that_proved_the_gain():
    decision, _ = fold([GAIN] * 8 + [0.05] * 60)
    assert estimate(decision.fresh) == pytest.approx(0.05)
    assert estimate(decision.searched) == pytest.approx(GAIN)


def test_evidence_stands_still_while_fresh_pairs_confirm():
    proven, _ = fold([GAIN] * 8)
    kept, _ = fold([GAIN] * 50)
    assert kept.better.value == proven.better.value


def test_every_pair_beyond_the_fewest_asks_for_one_more_fresh_pair():
    assert RULE.fresh_pairs(7, 7) == 5
    assert RULE.fresh_pairs(8, 8) == 6
    assert RULE.fresh_pairs(20, 20) == 18
    assert RULE.fresh_pairs(5, 5) == 5


def test_the_confirmation_fits_into_the_planned_schedule():
    assert RULE.planned_pairs == 45
    assert RULE.fresh_pairs(40, 40) == 5
    assert RULE.fresh_pairs(30, 30) == 15


def test_no_gain_in_quiet_noise_is_futile_soon():
    decision, outcomes = fold([0.0] * 60)
    assert outcomes[-1].reason == "futile"
    assert len(outcomes) <= 10
    assert decision.better.value < 100


def test_a_gain_of_the_minimum_effect_is_declared_futile_at_most_once_in_twenty():
    draw = random.Random(11)
    least = RULE.least_gain
    futile = sum(last([draw.gauss(least, 0.05) for _ in range(60)]).reason == "futile" for _ in range(1200))
    assert futile / 1200 <= 0.05


def test_a_clear_loss_is_aborted_with_the_fifth_pair():
    outcomes = fold([-GAIN] * 60)[1]
    assert (len(outcomes), outcomes[-1].reason) == (5, "slower")


def test_a_variant_that_turns_slower_while_it_is_confirmed_is_reverted():
    assert last([GAIN] * 8 + [-GAIN] * 60).reason in {"slower", "not-confirmed"}


def test_the_pair_limit_ends_an_undecided_trial():
    noise = [0.5, -0.5] * 40
    outcomes = fold(noise)[1]
    assert (len(outcomes), outcomes[-1].reason) == (40, "undecided")


def test_invalid_pairs_count_towards_the_limit_and_are_no_evidence():
    decision, outcomes = fold([None] * 60)
    assert (len(outcomes), outcomes[-1].reason) == (40, "undecided")
    assert decision.searched == []
    decision, outcomes = fold([GAIN, None] * 40)
    assert outcomes[-1].reason == "proven-gain"
    assert (len(decision.searched), len(decision.fresh)) == (8, 6)


def test_a_spoilt_pair_shows_harm_and_no_gain():
    decision = Decision(RULE)
    assert [decision.add(-GAIN, spoilt=True).reason for _ in range(5)] == [None, None, None, None, "slower"]
    assert (decision.searched, decision.better.value) == ([], 1.0)
    gaining = Decision(RULE)
    for _ in range(40):
        last = gaining.add(GAIN, spoilt=True)
    assert (last.reason, gaining.searched, gaining.better.value) == ("undecided", [], 1.0)


def test_alike_arms_seem_harmful_in_at_most_one_trial_in_twenty_however_many_pairs_are_spoilt():
    rng = random.Random(5)
    seeming = 0
    for _ in range(1000):
        decision, outcome = Decision(RULE), None
        while outcome is None or outcome.action in {"continue", "confirm"}:
            # The worse the lag, the more the pair is off, and the likelier it is spoilt: in either direction.
            size = rng.lognormvariate(-4, 1)
            outcome = decision.add(rng.choice((-1, 1)) * size, spoilt=size > 0.02)
        seeming += outcome.reason == "slower"
    assert seeming <= 0.05 * 1000 + 3 * math.sqrt(1000 * 0.05 * 0.95)


def test_a_schedule_that_ends_within_the_confirmation_is_undecided():
    outcomes = fold([GAIN] * 8 + [None] * 60)[1]
    assert (len(outcomes), outcomes[-1].reason) == (RULE.planned_pairs, "undecided")


gains = st.lists(st.floats(-2, 2), min_size=1, max_size=45)


@given(gains)
def test_swapping_the_arms_never_keeps_both(numbers):
    there, back = last(numbers), last([-number for number in numbers])
    assert not (there.action == back.action == "keep")
    if there.action == "keep":
        assert back.reason in {"slower", "futile"}


@given(gains)
def test_evidence_of_gain_is_the_mirrors_evidence_of_harm(numbers):
    there, back = Decision(RULE), Decision(RULE)
    for number in numbers:
        there.add(number)
        back.add(-number)
        if there.confirming or back.confirming:
            break
        assert there.better.log_value == back.slower.log_value


@given(gains)
def test_every_trial_ends_within_its_schedule(numbers):
    endless = numbers * RULE.planned_pairs
    outcomes = fold(endless)[1]
    assert len(outcomes) <= RULE.planned_pairs
    assert outcomes[-1].action in {"keep", "revert"}


@settings(max_examples=50)
@given(st.lists(st.floats(0.04, 2), min_size=45, max_size=45), st.lists(st.floats(0, 1), min_size=45, max_size=45))
def test_a_variant_that_is_better_still_is_kept_no_later(numbers, more):
    better = [number + extra for number, extra in zip(numbers, more, strict=True)]
    kept, outcomes = fold(numbers)
    if outcomes[-1].action == "keep":
        sooner, improved = fold(better)
        assert improved[-1].action == "keep"
        assert len(sooner.searched) <= len(kept.searched)


@settings(max_examples=300)
@given(gains)
def test_a_keep_has_evidence_pairs_effect_and_fresh_pairs(numbers):
    decision, outcomes = fold(numbers * 45)
    if outcomes[-1].action == "keep":
        assert decision.better.log_value >= math.log(100)
        assert len(decision.searched) >= 5
        assert len(decision.fresh) >= 5
        assert estimate(decision.searched) >= RULE.least_gain
        assert estimate(decision.fresh) >= RULE.least_gain


@pytest.mark.parametrize("scale", [0.01, 0.1])
def test_alike_configurations_are_kept_at_most_once_in_a_hundred(scale):
    """Heavy tails, strong drift: the order of the arms is the only thing that is random."""
    draw = random.Random(3)
    kept = 0
    for _ in range(1500):
        level = 0.0
        numbers = []
        for _ in range(45):
            level = 0.9 * level + draw.gauss(0, scale)
            difference = level - 0.3 * scale + scale * draw.gauss(0, 1) / max(0.1, abs(draw.gauss(0, 1)))
            numbers.append(difference if draw.random() < 0.5 else -difference)
        kept += last(numbers).action == "keep"
    assert kept <= 15
