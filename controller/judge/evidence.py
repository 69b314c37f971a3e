"""The evidence of a trial: a test martingale over the signs of its gains, and estimates that assume no distribution.

The order of the arms in a pair was drawn by a fair coin. If the two configurations are alike, swapping them would have
turned `g` into `-g` and changed nothing else, so the sign of `g` is that coin, whatever drift, bursts or tails the host
has. For any lambda, `exp(lambda*g) / cosh(lambda*g)` then has expectation 1, and the product over the pairs is a test
martingale; so is the mean of several over a grid of lambdas. By Ville's inequality such a process ever reaches `x`
with probability at most `1/x`, so it may be looked at after every pair.
(Ville 1939; Ramdas et al., "Testing exchangeability", for the sign-flip form.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from controller.model.trial import Effect

GRID_SIZE = 24
GRID_FIRST, GRID_LAST = 1.0, 300.0
# Small lambdas gather large noisy gains, large ones gather small steady gains: no size of effect has to be guessed.
GRID = tuple(GRID_FIRST * (GRID_LAST / GRID_FIRST) ** (step / (GRID_SIZE - 1)) for step in range(GRID_SIZE))

# Evidence is told as a plain number; more than this says nothing more, and would not survive a float or JSON.
LARGEST = 1e300
# A ratio of e**1000000 to one is as clear as it gets; more would only overflow.
_CLEAREST = 1e6
_LN2 = math.log(2.0)


class SignProcess:
    """The mixture e-process for "these numbers lean to the positive side". One number can at most double it."""

    def __init__(self) -> None:
        self._sums = [0.0] * GRID_SIZE

    def add(self, number: float) -> None:
        """Fold one more number. Raises ValueError when it is not finite."""
        if not math.isfinite(number):
            raise ValueError(f"evidence needs finite numbers, got {number}")
        number = max(-_CLEAREST, min(_CLEAREST, number))
        # exp(x)/cosh(x) = 2 / (1 + exp(-2x)), in logarithms and without overflow for any x.
        for index, weight in enumerate(GRID):
            twice = 2.0 * weight * number
            tail = math.log1p(math.exp(-abs(twice)))
            self._sums[index] += _LN2 - (tail if twice >= 0 else tail - twice)

    @property
    def log_value(self) -> float:
        """Natural logarithm of the evidence."""
        largest = max(self._sums)
        total = math.fsum(math.exp(each - largest) for each in self._sums)
        return largest + math.log(total) - math.log(GRID_SIZE)

    @property
    def value(self) -> float:
        """The evidence: 1 before the first number, at most `LARGEST`."""
        return _exp(self.log_value)


def _exp(logarithm: float) -> float:
    return LARGEST if logarithm >= math.log(LARGEST) else math.exp(logarithm)


# --- how large the gain is --------------------------------------------------------------------------------------------

# Below six numbers no interval of order statistics covers 95 %: [smallest, largest] covers 1 - 2**(1 - n). It is then
# widened on both sides by this many times its width, which makes it cover 95 % for normal noise.
WIDENED = {3: 0.82, 4: 0.24, 5: 0.04}
FEWEST = min(WIDENED)


def estimate(gains: Sequence[float]) -> float:
    """The typical gain (Hodges-Lehmann): the median of all means of two gains, a gain with itself included.

    It is nearly as sharp as the mean where noise is normal, and bursts in a quarter of the pairs hardly move it.
    Raises ValueError for no gains.
    """
    if not gains:
        raise ValueError("no gains to estimate from")
    ordered = sorted(gains)
    count = len(ordered) * (len(ordered) + 1) // 2
    return (_walsh(ordered, (count + 1) // 2) + _walsh(ordered, count // 2 + 1)) / 2


def interval(gains: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the typical gain: exact from six gains on (Wilcoxon signed ranks).

    It assumes that noise is symmetric, nothing more. With three to five gains it is their range, widened (`WIDENED`).
    Raises ValueError for fewer.
    """
    number = len(gains)
    if number < FEWEST:
        raise ValueError(f"an interval needs {FEWEST} gains, got {number}")
    ordered = sorted(gains)
    if number in WIDENED:
        margin = WIDENED[number] * (ordered[-1] - ordered[0])
        return ordered[0] - margin, ordered[-1] + margin
    rank = _critical_rank(number)
    count = number * (number + 1) // 2
    return _walsh(ordered, rank), _walsh(ordered, count + 1 - rank)


def effect(gains: Sequence[float]) -> Effect | None:
    """The gains as a reduction: a fraction with its 95 % interval, to six decimals; None for fewer than three."""
    if len(gains) < FEWEST:
        return None
    low, high = interval(gains)
    return Effect(estimate=reduction(estimate(gains)), low=reduction(low), high=reduction(high))


def reduction(log_gain: float) -> float:
    """`1 - exp(-g)`: a gain of ln(4/3) is a reduction by 0.25."""
    return round(-math.expm1(-max(log_gain, -500.0)), 6)


def log_gain(fraction: float) -> float:
    """The inverse of `reduction`, exactly."""
    return -math.log1p(-fraction)


def _walsh(ordered: Sequence[float], rank: int) -> float:
    """The `rank`-th smallest mean of two, by bisection: linear memory, and no dependence on an order of summation."""
    low, high = ordered[0], ordered[-1]
    for _ in range(64):
        middle = low + (high - low) / 2
        if _means_up_to(ordered, middle) >= rank:
            high = middle
        else:
            low = middle
    return high


def _means_up_to(ordered: Sequence[float], limit: float) -> int:
    """How many means of two, a number with itself included, are at most `limit`."""
    count = 0
    last = len(ordered) - 1
    for first, value in enumerate(ordered):
        while last >= first and (value + ordered[last]) / 2 > limit:
            last -= 1
        if last < first:
            break
        count += last - first + 1
    return count


# Up to here the distribution of the rank sum is counted out; beyond, its normal approximation is exact to a rank or so.
_COUNTED = 60
_ranks: dict[int, int] = {}


def _critical_rank(number: int) -> int:
    """The largest rank k >= 1 so that [k-th smallest, k-th largest mean of two] covers at least 95 %."""
    if number not in _ranks:
        _ranks[number] = _counted_rank(number) if number <= _COUNTED else _approximate_rank(number)
    return _ranks[number]


def _counted_rank(number: int) -> int:
    """From P(W <= k - 1) <= 2.5 %, W the sum of those ranks 1..number whose coin shows heads."""
    ways = [1] + [0] * (number * (number + 1) // 2)
    for rank in range(1, number + 1):
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    seen = 0
    for total, count in enumerate(ways):
        seen += count
        if 40 * seen > 2**number:
            return max(1, total)
    raise AssertionError("unreachable: the whole distribution exceeds its fortieth")


def _approximate_rank(number: int) -> int:
    mean = number * (number + 1) / 4
    deviation = math.sqrt(number * (number + 1) * (2 * number + 1) / 24)
    return max(1, math.floor(mean - 1.959964 * deviation + 0.5))
