"""Where things stand in the report's drawings: numbers in, coordinates out. The template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from controller.model.trial import Effect
from controller.report.words import compact

# One unit is about one CSS pixel on a phone, so that text inside a drawing stays readable there.
WIDTH, HEIGHT = 340.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 8.0, 8.0, 18.0
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Evidence is drawn from here to here at most: beyond, it is decided many times over.
EVIDENCE_FLOOR, EVIDENCE_CEILING = 1e-4, 1e12
MARKERS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Interval:
    """An effect on an axis from `-scale` to `+scale`: coordinates 0 to 200, right is better."""

    low: float
    high: float
    at: float
    scale: float


@dataclass(frozen=True)
class Dot:
    """One pair in a plot."""

    x: float
    y: float
    marker: str
    fresh: bool
    label: str


@dataclass(frozen=True)
class Plot:
    """Pairs from left to right; `path` is an SVG path, `fresh_from` where the confirming pairs begin."""

    dots: list[Dot]
    path: str
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    line_at: float
    line_label: str
    fresh_from: float | None


def effect_scale(effects: Sequence[Effect | None]) -> float:
    """The smallest round fraction that holds every interval of a list, at most 1: one axis for all of them."""
    widest = max((max(abs(e.low), abs(e.high), abs(e.estimate)) for e in effects if e is not None), default=0.0)
    return next((step for step in STEPS if step >= widest), STEPS[-1])


def interval(effect: Effect, scale: float) -> Interval:
    """Place an effect; what lies beyond the scale is drawn at its end."""

    def place(fraction: float) -> float:
        return round(100 + 100 * max(-1.0, min(1.0, fraction / scale)), 1)

    return Interval(low=place(effect.low), high=place(effect.high), at=place(effect.estimate), scale=scale)


def evidence_plot(evidence: Sequence[float], threshold: float, hosts: Sequence[str], fresh: int | None) -> Plot:
    """The evidence after each pair on a logarithmic axis, with the threshold as its line.

    Args:
        fresh: index of the first pair that only confirms; None when there is none.
    """
    shown = [min(max(value, EVIDENCE_FLOOR), EVIDENCE_CEILING) for value in evidence]
    low = math.floor(math.log10(min(*shown, 1.0)) if shown else 0)
    high = math.ceil(math.log10(max(*shown, threshold * 1.5, 10.0)))
    places = [_y((math.log10(value) - low) / (high - low)) for value in shown]
    start = f"M{LEFT:.1f} {_y((0 - low) / (high - low)):.1f}"
    dots = _dots(places, hosts, fresh, [f"evidence {compact(value)}" for value in evidence])
    path = start + "".join(f"L{dot.x:.1f} {dot.y:.1f}" for dot in dots)
    step = max(1, math.ceil((high - low) / 4))
    ticks = [
        Tick(_y((power - low) / (high - low)), _power(power)) for power in range(low, high + 1) if power % step == 0
    ]
    return Plot(
        dots=dots,
        path=path,
        y_ticks=ticks,
        x_ticks=_pair_ticks(len(shown)),
        line_at=_y((math.log10(threshold) - low) / (high - low)) if threshold > 0 else _y(1),
        line_label=f"enough: {compact(threshold)}",
        fresh_from=_fresh_from(fresh, len(shown)),
    )


def gains_plot(gains: Sequence[float | None], hosts: Sequence[str], fresh: int | None) -> Plot:
    """Each pair's gain as a reduction, in the order of judging, around the line of no difference.

    Args:
        gains: None for a pair that does not count; its place stays empty.
    """
    reductions = [None if gain is None else max(-1.0, -math.expm1(-max(gain, -1.0))) for gain in gains]
    told = [value for value in reductions if value is not None]
    bound = next((step for step in STEPS if step >= max(map(abs, told), default=0.0)), 1.0)
    low = -bound if min(told, default=0.0) < 0 else -bound / 5
    high = bound if max(told, default=0.0) > 0 else bound / 5
    places = [None if value is None else _y((value - low) / (high - low)) for value in reductions]
    marks = [mark for mark in (-bound, -bound / 2, 0.0, bound / 2, bound) if low <= mark <= high]
    return Plot(
        dots=_dots(places, hosts, fresh, ["" if value is None else f"{value:+.1%}" for value in reductions]),
        path="",
        y_ticks=[Tick(_y((mark - low) / (high - low)), f"{mark * 100:+g} %" if mark else "0") for mark in marks],
        x_ticks=_pair_ticks(len(gains)),
        line_at=_y((0 - low) / (high - low)),
        line_label="no difference",
        fresh_from=_fresh_from(fresh, len(gains)),
    )


def marker_of(hosts: Sequence[str]) -> dict[str, str]:
    """Each host its shape, in order of first appearance; more hosts than shapes share them."""
    return {host: MARKERS[index % len(MARKERS)] for index, host in enumerate(dict.fromkeys(hosts))}


def _dots(places: Sequence[float | None], hosts: Sequence[str], fresh: int | None, labels: Sequence[str]) -> list[Dot]:
    markers = marker_of(hosts)
    return [
        Dot(
            x=_x(index, len(places)),
            y=y,
            marker=markers[host],
            fresh=fresh is not None and index >= fresh,
            label=f"pair {index + 1}, {host}: {label}",
        )
        for index, (y, host, label) in enumerate(zip(places, hosts, labels, strict=True))
        if y is not None
    ]


def _x(index: int, count: int) -> float:
    """Pair `index` of `count`, the first a step away from the axis."""
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (index + 1) / max(count, 1), 1)


def _y(share: float) -> float:
    """0 is the bottom of the plot, 1 its top."""
    return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share, 1)


def _fresh_from(fresh: int | None, count: int) -> float | None:
    if fresh is None or fresh >= count:
        return None
    return (_x(fresh - 1, count) + _x(fresh, count)) / 2 if fresh else LEFT


def _pair_ticks(count: int) -> list[Tick]:
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000) if count <= size * 7 or size == 5000)
    return [Tick(_x(number - 1, count), str(number)) for number in range(step, count + 1, step)]


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 4 else f"1e{power}"
