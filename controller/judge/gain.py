"""What one pair says: its gain `g = ln(control / variant)`, positive when the variant is better.

Every gain here is antisymmetric: had the two blocks changed places, it would be `-g` exactly. A weighted mean of such
gains is antisymmetric too, which is all that the evidence asks of it (judge/evidence.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from operator import attrgetter

from controller.model.blocks import Block, ClassFigures
from controller.model.designs import DESIGNS
from controller.model.metrics import METRICS, Metric, MetricSpec
from controller.model.trial import Pair, ProbeDesign

# A figure of zero (microseconds, bytes) is below what can be told; its logarithm would be none.
SMALLEST = 1.0
# What nginx's own log can tell of a request: a figure below one of its milliseconds says nothing.
SMALLEST_LOGGED_US = 1000.0


def gain(pair: Pair, metric: Metric, design: ProbeDesign) -> float | None:
    """The pair's gain; None when a block does not tell the metric.

    A duet compares p50 request by request (`paired_gain`), which cancels what both arms lived through. Live traffic is
    compared class by class of its paths, so that another mix of requests is no gain.
    """
    spec = METRICS[metric]
    if (pair.control.classes or pair.variant.classes) and spec.of_classes:
        return _over_classes(pair, spec)
    if spec.paired and DESIGNS[design].at_once:
        told = pair.control.paired_gain
        return told if told is not None and told == pair.variant.paired_gain and math.isfinite(told) else None
    control, variant = figure(pair.control, spec), figure(pair.variant, spec)
    if control is None or variant is None or (spec.at_end and not (control and variant)):
        return None
    return log_ratio(variant, control) if spec.more_is_better else log_ratio(control, variant)


def gains(pair: Pair, metrics: Iterable[Metric], design: ProbeDesign) -> dict[Metric, float]:
    """The gain of each metric that both blocks tell, in the order given."""
    told = {metric: gain(pair, metric, design) for metric in metrics}
    return {metric: each for metric, each in told.items() if each is not None}


def weighted(told: Mapping[Metric, float], weights: Mapping[Metric, float]) -> float:
    """The weighted mean of the gains. Raises KeyError when one is missing."""
    return sum(weight * told[metric] for metric, weight in weights.items()) / sum(weights.values())


def _over_classes(pair: Pair, spec: MetricSpec) -> float | None:
    """The mean gain of the classes that both blocks saw, each weighted by its requests in both blocks together.

    In both together, because swapping the arms must turn the gain into its opposite and change nothing else: all the
    evidence rests on that, and the control's share alone would break it.
    """
    weights, found = [], []
    for label in sorted(pair.control.classes.keys() & pair.variant.classes.keys()):
        control, variant = pair.control.classes[label], pair.variant.classes[label]
        ours, theirs = _figure_of_class(variant, spec), _figure_of_class(control, spec)
        weights.append(control.requests + variant.requests)
        found.append(log_ratio(max(theirs, SMALLEST_LOGGED_US), max(ours, SMALLEST_LOGGED_US)))
    if not found:
        return None
    return sum(weight * each for weight, each in zip(weights, found, strict=True)) / sum(weights)


def _figure_of_class(figures: ClassFigures, spec: MetricSpec) -> float:
    return float(attrgetter(spec.field)(figures))


def log_ratio(control: float, variant: float) -> float:
    """`ln(control / variant)` of two figures in one unit. Equal figures give 0, which is evidence for neither side."""
    return math.log(max(control, SMALLEST)) - math.log(max(variant, SMALLEST))


def figure(block: Block, spec: MetricSpec) -> float | None:
    """What the block tells of the metric; None when it does not, or not a number from 0 on."""
    told: float | None = attrgetter(spec.field)(block)
    return told if told is not None and math.isfinite(told) and told >= 0 else None
