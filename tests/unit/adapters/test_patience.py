"""Backoff ends when its time is over, however long each try takes."""

from __future__ import annotations

import pytest

from controller.adapters.patience import spread, tries

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tried(each: float) -> tuple[int, float]:
    """(how many tries, when the last one began) where each takes so long."""
    clock = Clock()
    count, began = 0, 0.0
    for pause in tries(PAUSES, clock):
        count, began = count + 1, clock.now - 100.0
        clock.now += each + pause
    return count, began


def test_quick_tries_have_all_pauses_and_a_last_one() -> None:
    count, began = tried(0.0)
    assert count == len(PAUSES) + 1
    assert sum(PAUSES) / 2 <= began <= sum(PAUSES)


@pytest.mark.parametrize("each", [5.0, 26.0, 90.0, 400.0])
def test_slow_tries_use_up_the_pauses_and_the_last_begins_in_their_time_or_with_one_of_them(each: float) -> None:
    count, began = tried(each)
    assert 2 <= count <= len(PAUSES) + 1
    assert began <= sum(PAUSES) + each


def test_without_pauses_there_is_one_try() -> None:
    assert list(tries(())) == [0.0]


def test_pauses_are_spread_around_what_they_are_on_average() -> None:
    assert [list(spread((2.0,), lambda drawn=drawn: drawn)) for drawn in (0.0, 0.5, 1.0)] == [[1.0], [2.0], [3.0]]
