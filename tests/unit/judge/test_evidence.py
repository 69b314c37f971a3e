import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.judge import evidence
from controller.judge.evidence import SignProcess, effect, estimate, interval, log_gain, reduction

gains = st.floats(-20, 20, allow_nan=False)
some_gains = st.lists(gains, min_size=1, max_size=40)


def value(numbers):
    process = SignProcess()
    for number in numbers:
        process.add(number)
    return process.value


def test_evidence_is_the_mean_over_24_lambdas_from_1_to_300_of_the_product():
    numbers = [0.1, -0.02, 0.05, 0.2]
    grid = [300 ** (i / 23) for i in range(24)]
    products = [math.prod(math.exp(w * g) / math.cosh(w * g) for g in numbers) for w in grid]
    assert value(numbers) == pytest.approx(sum(products) / 24)


def test_evidence_starts_at_one():
    assert value([]) == pytest.approx(1.0)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=9))
def test_under_random_signs_the_expectation_is_exactly_one(sizes):
    total = math.fsum(
        value([sign * size for sign, size in zip(signs, sizes, strict=True)])
        for signs in itertools.product((1, -1), repeat=len(sizes))
    )
    assert total / 2 ** len(sizes) == pytest.approx(1.0)


@settings(max_examples=40)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=9), st.sampled_from([2.0, 5.0, 20.0, 100.0]))
def test_under_random_signs_it_ever_reaches_x_with_probability_at_most_one_in_x(sizes, level):
    reached = 0
    for signs in itertools.product((1, -1), repeat=len(sizes)):
        process = SignProcess()
        for sign, size in zip(signs, sizes, strict=True):
            process.add(sign * size)
            if process.value >= level:
                reached += 1
                break
    assert reached / 2 ** len(sizes) <= 1 / level


@given(some_gains, gains)
def test_one_pair_at_most_doubles_the_evidence(numbers, more):
    process = SignProcess()
    for number in numbers:
        process.add(number)
    before = process.log_value
    process.add(more)
    assert process.log_value <= before + math.log(2) + 1e-9


@given(some_gains, st.integers(0, 39), st.floats(0, 5))
def test_a_larger_gain_never_lowers_the_evidence(numbers, index, more):
    larger = list(numbers)
    larger[index % len(numbers)] += more
    assert value(larger) >= value(numbers) * (1 - 1e-12)


def test_seven_equal_clear_gains_are_the_floor_for_a_hundred():
    assert value([1000.0] * 6) == pytest.approx(64)
    assert value([1000.0] * 7) == pytest.approx(128)


@pytest.mark.parametrize("number", [1e308, 1e-320, 0.0])
def test_no_size_of_gain_overflows(number):
    assert math.isfinite(value([number] * 50))
    assert math.isfinite(value([-number] * 50))


def test_evidence_beyond_every_float_is_told_as_the_largest_and_a_loss_as_zero():
    assert value([10.0] * 2000) == evidence.LARGEST
    assert value([-10.0] * 2000) == 0.0


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(number):
    with pytest.raises(ValueError, match="finite"):
        SignProcess().add(number)


# --- estimates --------------------------------------------------------------------------------------------------------


def walsh(numbers):
    return sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(numbers, 2))


@given(some_gains)
def test_the_estimate_is_the_median_of_all_means_of_two(numbers):
    means = walsh(numbers)
    middle = (means[(len(means) - 1) // 2] + means[len(means) // 2]) / 2
    assert estimate(numbers) == pytest.approx(middle, abs=1e-12)


@given(st.lists(gains, min_size=6, max_size=40))
def test_the_interval_is_made_of_two_of_those_means_as_far_from_either_end(numbers):
    means = walsh(numbers)
    low, high = interval(numbers)
    rank = evidence._critical_rank(len(numbers))
    assert low == pytest.approx(means[rank - 1], abs=1e-12)
    assert high == pytest.approx(means[-rank], abs=1e-12)


@given(some_gains, st.randoms(use_true_random=False))
def test_no_order_of_the_pairs_changes_an_estimate(numbers, shuffle):
    mixed = list(numbers)
    shuffle.shuffle(mixed)
    assert (estimate(mixed), effect(mixed)) == (estimate(numbers), effect(numbers))


@given(st.lists(gains, min_size=3, max_size=40))
def test_swapping_the_arms_mirrors_estimate_and_interval(numbers):
    mirrored = [-number for number in numbers]
    low, high = interval(numbers)
    assert estimate(mirrored) == pytest.approx(-estimate(numbers), abs=1e-9)
    assert interval(mirrored) == pytest.approx((-high, -low), abs=1e-9)


@given(st.lists(gains, min_size=3, max_size=40))
def test_the_interval_holds_the_estimate(numbers):
    low, high = interval(numbers)
    assert low - 1e-9 <= estimate(numbers) <= high + 1e-9


# Two-sided 5 % critical values of Wilcoxon's signed-rank statistic, as every table has them; the rank is one more.
@pytest.mark.parametrize(
    ("number", "critical"), [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (12, 13), (15, 25), (20, 52), (25, 89), (30, 137)]
)
def test_ranks_are_those_of_the_published_tables(number, critical):
    assert evidence._critical_rank(number) == critical + 1


@pytest.mark.parametrize("number", [6, 9, 12])
def test_the_interval_covers_at_least_95_percent_exactly(number):
    rank = evidence._critical_rank(number)
    covered = 0
    for signs in itertools.product((1, -1), repeat=number):
        positive = sum(place for place, sign in enumerate(signs, 1) if sign > 0)
        most = number * (number + 1) // 2
        covered += rank <= positive <= most - rank
    assert Fraction(covered, 2**number) >= Fraction(95, 100)
    assert Fraction(covered, 2**number) < Fraction(98, 100)


@pytest.mark.parametrize("number", [61, 100, 200])
def test_ranks_of_long_trials_are_within_one_of_the_counted_ones(number):
    assert 0 <= evidence._counted_rank(number) - evidence._approximate_rank(number) <= 1


@pytest.mark.parametrize("number", [3, 4, 5])
def test_the_widened_range_of_few_pairs_covers_95_percent_of_normal_noise(number):
    draw = random.Random(5)
    covered = 0
    for _ in range(6000):
        low, high = interval([draw.gauss(0, 1) for _ in range(number)])
        covered += low <= 0 <= high
    assert 0.944 <= covered / 6000 <= 0.962


def test_fewer_than_three_pairs_have_no_effect_yet():
    assert effect([0.1, 0.1]) is None
    assert effect([0.1, 0.1, 0.1]) is not None
    with pytest.raises(ValueError, match="3 gains"):
        interval([0.1, 0.1])
    with pytest.raises(ValueError, match="no gains"):
        estimate([])


def test_a_gain_is_told_as_a_reduction():
    assert reduction(math.log(4 / 3)) == 0.25
    assert reduction(-math.log(2)) == -1.0
    assert math.isfinite(reduction(-1e9))


@given(st.floats(0, 0.9))
def test_a_minimum_effect_and_its_gain_are_the_same_thing(fraction):
    assert reduction(log_gain(fraction)) == pytest.approx(fraction, abs=1e-6)


def test_two_thousand_pairs_are_estimated_in_a_blink():
    draw = random.Random(2)
    found = effect([draw.gauss(0.1, 0.1) for _ in range(2000)])
    assert found is not None
    assert found.low < reduction(0.1) < found.high
    assert found.high - found.low < 0.01
