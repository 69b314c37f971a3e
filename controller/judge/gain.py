"""What one pair says: its gain `g = ln(control / variant)`, positive when the variant is better.

Every gain here is antisymmetric: had the two blocks changed places, it would be `-g` exactly. A weighted mean of such
gains is antisymmetric too, which is all that the evidence asks of it (judge/evidence.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from controller.model.blocks import Block
from controller.model.experiment import Design, Metric
from controller.model.trial import Pair

# A figure of zero (microseconds, bytes) is below what can be told; its logarithm would be none.
SMALLEST = 1.0


def gain(pair: Pair, metric: Metric, design: Design) -> float | None:
    """The pair's gain; None when a block does not tell the metric.

    A duet compares p50 request by request (`paired_gain`), which cancels what both arms lived through.
    """
    if metric == "p50" and design == "duet":
        told = pair.control.paired_gain
        return told if told is not None and told == pair.variant.paired_gain and math.isfinite(told) else None
    control, variant = _figure(pair.control, metric), _figure(pair.variant, metric)
    if control is None or variant is None:
        return None
    return log_ratio(control, variant)


def gains(pair: Pair, metrics: Iterable[Metric], design: Design) -> dict[Metric, float]:
    """The gain of each metric that both blocks tell, in the order given."""
    told = {metric: gain(pair, metric, design) for metric in metrics}
    return {metric: each for metric, each in told.items() if each is not None}


def weighted(told: Mapping[Metric, float], weights: Mapping[Metric, float]) -> float:
    """The weighted mean of the gains. Raises KeyError when one is missing."""
    return sum(weight * told[metric] for metric, weight in weights.items()) / sum(weights.values())


def log_ratio(control: float, variant: float) -> float:
    """`ln(control / variant)` of two figures in one unit. Equal figures give 0, which is evidence for neither side."""
    return math.log(max(control, SMALLEST)) - math.log(max(variant, SMALLEST))


def _figure(block: Block, metric: Metric) -> float | None:
    figures: dict[Metric, float | None] = {
        "p50": block.p50_us,
        "p90": block.p90_us,
        "p95": block.p95_us,
        "p99": block.p99_us,
        "mean": block.mean_us,
        "cpu_per_request": block.metrics.cpu_us_per_request,
        # An nginx that takes no memory at all is one that is gone.
        "memory": block.metrics.rss_bytes or None,
    }
    figure = figures[metric]
    return figure if figure is not None and math.isfinite(figure) and figure >= 0 else None
