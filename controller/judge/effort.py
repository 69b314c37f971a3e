"""How many pairs a decision takes: the growth of the evidence, given the size of a gain and the noise of a pair."""

from __future__ import annotations

import math

from controller.judge.decision import Rule
from controller.judge.evidence import GRID

# Normal quantiles as a grid of equal steps; beyond four deviations nothing changes the sum.
_STEP = 0.25
_NORMAL = tuple((k * _STEP, _STEP * math.exp(-((k * _STEP) ** 2) / 2) / math.sqrt(2 * math.pi)) for k in range(-16, 17))
# What the mixture costs: about a quarter of its lambdas fit a given gain.
_MIXTURE = 4.0


def growth(gain: float, noise: float) -> float:
    """Expected growth of the evidence's logarithm a pair, at the lambda that suits best; at most ln 2."""
    return max(_growth_at(weight, gain, noise) for weight in GRID)


def _growth_at(weight: float, gain: float, noise: float) -> float:
    """E[ln(exp(x)/cosh(x))] of x = weight * g, g normal."""
    total = 0.0
    for deviation, probability in _NORMAL:
        twice = 2.0 * weight * (gain + deviation * noise)
        tail = math.log1p(math.exp(-abs(twice)))
        total += probability * (math.log(2.0) - (tail if twice >= 0 else tail - twice))
    return total


def pairs_to_prove(gain: float, noise: float, rule: Rule) -> float:
    """Expected pairs until a true gain (logarithm) is proven in this noise; infinity when it never is."""
    rate = growth(gain, noise)
    if rate <= 0:
        return math.inf
    return max(float(rule.fewest_pairs), math.log(rule.threshold * _MIXTURE) / rate)


def pairs_to_keep(gain: float, noise: float, rule: Rule) -> float:
    """Expected pairs until it is also confirmed; infinity when the proof would take more than the limit."""
    proven = pairs_to_prove(gain, noise, rule)
    if proven > rule.maximum_pairs:
        return math.inf
    return proven + rule.confirm_pairs + (proven - rule.fewest_pairs)
