"""What is drawn from a range is a value that nginx reads, within the range, and the number again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.experiment import NumberRange
from controller.model.ranges import drawn_from, value_of


def seconds(decimals: int) -> NumberRange:
    return NumberRange(kind="number", low=0, high=9_000_000, decimals=decimals, unit="s")


@pytest.mark.parametrize(
    ("drawn", "decimals", "text"),
    [
        (120.0, 0, "120s"),
        (2.0, 2, "2s"),
        (0.5, 1, "0.5s"),
        (1_234_567.25, 2, "1234567.25s"),
        (0.000001, 6, "0.000001s"),
    ],
)
def test_a_fraction_with_a_unit_is_written_out(drawn: float, decimals: int, text: str) -> None:
    assert value_of(seconds(decimals), drawn) == text


@given(st.floats(min_value=0, max_value=9_000_000), st.integers(min_value=0, max_value=6))
def test_what_is_read_back_is_the_rounded_draw(drawn: float, decimals: int) -> None:
    each = seconds(decimals)
    value = value_of(each, drawn)
    assert "e" not in str(value)
    assert drawn_from(each, value) == round(drawn, decimals)
    assert each.low <= drawn_from(each, value) <= each.high
