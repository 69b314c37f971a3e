import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.judge.schedule import draw_pairs, draw_slots

CONTROL_FIRST, VARIANT_FIRST = ("control", "variant"), ("variant", "control")


@given(st.integers(-(2**63), 2**64), st.integers(1, 10**6), st.integers(0, 60), st.integers(0, 60))
def test_the_first_pairs_do_not_depend_on_how_many_are_drawn(seed, trial, few, more):
    assert draw_pairs(seed, trial, "web-1", few + more)[:few] == draw_pairs(seed, trial, "web-1", few)


def test_the_documented_recipe_repeats_the_draw_with_nothing_but_sha256():
    for number, order in enumerate(draw_pairs(42, 3, "web-1", 50), 1):
        bit = hashlib.sha256(f"42/web-1/3/{number}/order".encode()).digest()[0] & 1
        assert order == (VARIANT_FIRST if bit else CONTROL_FIRST)


def test_a_recorded_draw_never_changes():
    orders = "".join("v" if order == VARIANT_FIRST else "c" for order in draw_pairs(20261123, 1, "lab-1", 24))
    assert orders == "vcvcvcvvcvvvccvvcvvvvccv"
    slots = "".join(str(int(b)) for b in itertools.islice(draw_slots(20261123, 1, "lab-1", 2), 254, 274))
    assert slots == "11001101001100001111"


def test_each_order_comes_about_as_often_as_the_other_and_neighbours_tell_nothing():
    orders = draw_pairs(1, 1, "web-1", 20_000)
    first = sum(order == CONTROL_FIRST for order in orders)
    same = sum(a == b for a, b in itertools.pairwise(orders))
    assert abs(first - 10_000) < 300
    assert abs(same - 10_000) < 300


def test_seed_trial_and_host_each_give_another_draw():
    draws = [draw_pairs(*key, 64) for key in ((1, 1, "a"), (2, 1, "a"), (1, 2, "a"), (1, 1, "b"))]
    assert all(one != other for one, other in itertools.combinations(draws, 2))


def test_slots_are_fair_and_go_on_beyond_one_digest():
    slots = list(itertools.islice(draw_slots(1, 1, "web-1", 1), 20_000))
    assert abs(sum(slots) - 10_000) < 300
    assert slots[:256] != slots[256:512]


def test_a_negative_count_is_an_error():
    with pytest.raises(ValueError, match="-1 pairs"):
        draw_pairs(1, 1, "web-1", -1)
