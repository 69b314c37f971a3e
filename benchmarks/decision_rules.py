"""The rules that `decision_quality` compares: Ratchet's own, as arrays, and its peers'.

`ratchet` is `controller.judge.decision` over many trials at once; tests/unit/benchmarks holds the two against each
other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy

from benchmarks.decision_worlds import SECONDS, Floats
from controller.judge.decision import FUTILE, SLOWER, Rule
from controller.judge.evidence import GRID

_GRID = numpy.array(GRID)
_CHUNK = 100


@dataclass(frozen=True)
class Decided:
    """One trial's end: its reason code, pairs until the gain was proven (0: never), pairs in all."""

    reason: str
    proven_after: int
    pairs: int

    @property
    def kept(self) -> bool:
        return self.reason == "proven-gain"


def ratchet(gains: Floats, rule: Rule) -> list[Decided]:
    """What the judge decides on each row of gains (runs x planned pairs)."""
    return [
        _one(row, evidence, rule)
        for start in range(0, len(gains), _CHUNK)
        for row, evidence in _with_evidence(gains[start : start + _CHUNK], rule)
    ]


def _with_evidence(gains: Floats, rule: Rule) -> Iterator[tuple[Floats, tuple[Floats, Floats, Floats]]]:
    better = _log_evidence(gains)
    slower = _log_evidence(-gains)
    futile = _log_evidence(rule.least_gain - gains)
    for run, row in enumerate(gains):
        yield row, (better[run], slower[run], futile[run])


def _log_evidence(numbers: Floats) -> Floats:
    """`SignProcess.log_value` after each number."""
    twice = 2.0 * numbers[..., None] * _GRID
    sums = numpy.cumsum(math.log(2.0) - numpy.logaddexp(0.0, -twice), axis=1)
    largest = sums.max(axis=-1)
    told: Floats = largest + numpy.log(numpy.exp(sums - largest[..., None]).mean(axis=-1))
    return told


def _one(gains: Floats, evidence: tuple[Floats, Floats, Floats], rule: Rule) -> Decided:
    better, slower, futile = evidence
    slow_at = _first(slower >= math.log(SLOWER))
    futile_at = _first(futile >= math.log(FUTILE))
    last = min(slow_at - 1, futile_at, rule.maximum_pairs)
    for index in numpy.flatnonzero(better[:last] >= math.log(rule.threshold)):
        proven = int(index) + 1
        if proven < rule.minimum_pairs or hodges_lehmann(gains[:proven]) < rule.least_gain:
            continue
        end = proven + rule.fresh_pairs(proven, proven)
        if slow_at <= end:
            return Decided("slower", proven, slow_at)
        held = hodges_lehmann(gains[proven:end]) >= rule.least_gain
        return Decided("proven-gain" if held else "not-confirmed", proven, end)
    if slow_at <= min(futile_at, rule.maximum_pairs):
        return Decided("slower", 0, slow_at)
    if futile_at <= rule.maximum_pairs:
        return Decided("futile", 0, futile_at)
    return Decided("undecided", 0, rule.maximum_pairs)


def _first(reached: numpy.typing.NDArray[numpy.bool_]) -> int:
    """Number of the first pair, from 1; beyond every limit when there is none."""
    return int(reached.argmax()) + 1 if reached.any() else 10**9


@cache
def _pairs_of(count: int) -> tuple[numpy.typing.NDArray[numpy.intp], numpy.typing.NDArray[numpy.intp]]:
    return numpy.triu_indices(count)


def hodges_lehmann(numbers: Floats) -> float:
    """`controller.judge.evidence.estimate`."""
    one, other = _pairs_of(len(numbers))
    return float(numpy.median((numbers[one] + numbers[other]) / 2))


# --- peers: log latencies of 15 + 15 minutes (runs x 1,800) in, which runs they would keep out ------------------------

Kept = numpy.typing.NDArray[numpy.bool_]


def _halves(seen: Floats) -> tuple[Floats, Floats]:
    return seen[:, : SECONDS // 2], seen[:, SECONDS // 2 :]


def median_falls_by(fraction: float) -> Callable[[Floats], Kept]:
    """Keep when p50 after is at least this fraction below p50 before."""

    def rule(seen: Floats) -> Kept:
        before, after = _halves(seen)
        kept: Kept = numpy.median(after, axis=1) - numpy.median(before, axis=1) <= math.log1p(-fraction)
        return kept

    return rule


def _minutes(seen: Floats) -> tuple[Floats, Floats]:
    """Latency by the minute, as a monitoring system stores it: runs x 15, before and after."""
    before, after = (numpy.exp(half).reshape(len(half), 15, 60).mean(axis=2) for half in _halves(seen))
    return before, after


def mann_whitney(seen: Floats) -> Kept:
    """Keep when the minutes after are lower by a two-sided Mann-Whitney test, p < .05 (normal approximation)."""
    before, after = _minutes(seen)
    lower = (after[:, :, None] < before[:, None, :]).sum(axis=(1, 2))
    kept: Kept = lower >= 225 / 2 + 1.959964 * math.sqrt(15 * 15 * 31 / 12) + 0.5
    return kept


def kayenta(seen: Floats) -> Kept:
    """Keep when the mean falls by 5 % and Kayenta says LOW: 98 % interval of the shift below a quarter of it."""
    before, after = _minutes(seen)
    shifts = numpy.sort((after[:, :, None] - before[:, None, :]).reshape(len(seen), -1), axis=1)
    rank = math.floor(225 / 2 - 2.326348 * math.sqrt(15 * 15 * 31 / 12))
    upper, typical = shifts[:, -rank], numpy.median(shifts, axis=1)
    kept: Kept = (upper < -0.25 * numpy.abs(typical)) & (after.mean(axis=1) <= 0.95 * before.mean(axis=1))
    return kept


def peeked_t_test(gains: Floats) -> Kept:
    """Keep at the first pair, from the fifth on, at which a two-sided t-test of all gains so far has p < .05."""
    count = numpy.arange(1, gains.shape[1] + 1)
    mean = numpy.cumsum(gains, axis=1) / count
    square = numpy.cumsum(gains**2, axis=1) / count
    with numpy.errstate(divide="ignore", invalid="ignore"):
        deviation = numpy.sqrt(numpy.maximum(square - mean**2, 0) * count / (count - 1))
        statistic = mean / deviation * numpy.sqrt(count)
    kept: Kept = (statistic[:, 4:] >= _student(count[4:] - 1)).any(axis=1)
    return kept


def _student(freedom: numpy.typing.NDArray[numpy.int_]) -> Floats:
    """97.5 % quantiles of Student's t (Cornish-Fisher to the fourth order; within 0.002 from 4 degrees on)."""
    z = 1.959964
    quantile: Floats = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )
    return quantile
