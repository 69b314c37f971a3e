"""Where things stand in the drawings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.trial import Effect
from controller.report import charts

numbers = st.floats(min_value=-1e6, max_value=1e6)


def inside(plot: charts.Plot) -> bool:
    return all(0 <= dot.x <= charts.WIDTH and 0 <= dot.y <= charts.HEIGHT for dot in plot.dots)


def test_the_scale_is_the_smallest_round_one_that_holds_every_interval() -> None:
    assert charts.effect_scale([Effect(estimate=0.02, low=-0.01, high=0.04), None]) == 0.05
    assert charts.effect_scale([Effect(estimate=-9.0, low=-20.0, high=0.0)]) == 1.0
    assert charts.effect_scale([]) == 0.01


def test_better_is_right_of_the_middle_and_what_is_beyond_the_scale_stays_at_its_end() -> None:
    drawn = charts.interval(Effect(estimate=0.25, low=0.1, high=0.4), 0.5)
    assert (drawn.low, drawn.at, drawn.high) == (120.0, 150.0, 180.0)
    assert charts.interval(Effect(estimate=-9.0, low=-20.0, high=0.0), 1.0).low == 0.0


def test_evidence_rises_to_its_threshold_on_a_logarithmic_axis() -> None:
    plot = charts.evidence_plot([1.0, 10.0, 100.0], 100.0, ["a", "b", "a"], fresh=2)
    heights = [dot.y for dot in plot.dots]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert heights[2] == plot.line_at
    assert [dot.marker for dot in plot.dots] == ["circle", "square", "circle"]
    assert [dot.fresh for dot in plot.dots] == [False, False, True]
    assert plot.fresh_from is not None


@given(st.lists(st.floats(min_value=0, max_value=1e300), max_size=60), st.floats(min_value=0, max_value=1e6))
def test_no_evidence_is_drawn_outside_the_drawing(evidence: list[float], threshold: float) -> None:
    assert inside(charts.evidence_plot(evidence, threshold, ["h"] * len(evidence), None))


@given(st.lists(st.none() | numbers, max_size=60), st.none() | st.integers(0, 70))
def test_no_gain_is_drawn_outside_the_drawing(gains: list[float | None], fresh: int | None) -> None:
    plot = charts.gains_plot(gains, ["h"] * len(gains), fresh)
    assert inside(plot)
    assert len(plot.dots) == sum(gain is not None for gain in gains)


@pytest.mark.parametrize("count", [1, 7, 12, 45, 800])
def test_a_few_pairs_are_numbered_on_the_axis(count: int) -> None:
    assert 1 <= len(charts.gains_plot([0.1] * count, ["h"] * count, None).x_ticks) <= 7
