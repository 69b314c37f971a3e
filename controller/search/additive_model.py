"""What a search has learned of its space: a Gaussian process that adds up one function per parameter.

What a setting gains is mostly the sum of what its parameters gain by themselves, and a little of what two of them do
together. A model that knows this learns more from thirty looks at fourteen parameters than one that takes a setting
for a point in space. Its covariance of two settings is `s + c * s**2` with `s` the weighted sum over the parameters of
how alike their two values are; each parameter's weight, `c` and the noise are those under which the looks are most
likely, so that parameters that do nothing are soon left out of account.
(Duvenaud, Nickisch, Rasmussen 2011, "Additive Gaussian Processes"; Rasmussen and Williams 2006, chapters 2 and 5.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy
from numpy.typing import NDArray

from controller.model.experiment import Choice, Experiment, ParameterValue, Range
from controller.model.ranges import drawn_from
from controller.search.ledger import Look
from controller.search.space import Parameters

Numbers = NDArray[numpy.floating[Any]]

# Two values are alike as exp(-d**2 / (2 * LENGTH**2)), with d their distance and the range 1 long.
LENGTH = 0.5
# How bad a bad setting is says nothing about the good ones: gains this many times as far below the median as the best
# is above it count no less than that.
FLOOR = 3.0
# More settings than this make the model slow; the best ones say most.
MODELLED = 150
# Values that are tried for the weight of a parameter (of one that matters as much as all others: 1), for what two
# parameters do together, and for the noise of a look as a share of the variance of gains.
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
TOGETHER = (0.0, 0.03, 0.1, 0.3, 1.0)
NOISES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
SWEEPS = 2
# Standard deviation of ln(weight) before anything was seen: a weight of 10 needs evidence.
WEIGHT_SPREAD = math.log(10.0) * math.sqrt(2.0)


@dataclass(frozen=True)
class _Kernel:
    """weights: one a parameter; together: what products of two add; noise: variance of a look of median length."""

    weights: Numbers
    together: float
    noise: float

    def covariance(self, alike: Numbers) -> Numbers:
        """alike: parameters x settings x settings, from 0 to 1."""
        summed: Numbers = numpy.tensordot(self.weights, alike, 1)
        return summed + self.together * summed * summed

    @property
    def variance(self) -> float:
        """Of one setting's gain before anything was seen."""
        total = float(self.weights.sum())
        return total + self.together * total * total


class AdditiveModel:
    """What looks tell about every setting of an experiment's ranges. Raises ValueError when none has a gain."""

    def __init__(self, experiment: Experiment, looks: Sequence[Look]) -> None:
        known = [(look, look.gain) for look in looks if look.gain is not None]
        if not known:
            raise ValueError("nothing to learn from: no look has a gain")
        known = sorted(known, key=lambda each: each[1], reverse=True)[:MODELLED]
        settings = [look.parameters for look, _ in known]
        self._ranges = experiment.ranges
        self._places = self._placed(settings)
        gains = numpy.array([gain for _, gain in known])
        middle = float(numpy.median(gains))
        gains = numpy.maximum(gains, middle - FLOOR * (float(gains.max()) - middle))
        self._mean, self._unit = float(gains.mean()), float(gains.std()) or 1.0
        self._gains = (gains - self._mean) / self._unit
        pairs = numpy.array([max(1, look.pairs) for look, _ in known], dtype=float)
        self._noisier = numpy.median(pairs) / pairs
        alike = self._alike(self._places)
        self._kernel = self._most_likely(alike)
        self._root, self._solved = self._factors(alike, self._kernel)
        # The best gain that is believed: a lucky look is none.
        self._best = float(self.predict(settings)[0].max())

    def predict(self, settings: Sequence[Parameters]) -> tuple[Numbers, Numbers]:
        """(expected gain, its standard deviation) of each setting."""
        across = self._kernel.covariance(self._alike(self._placed(settings)))
        mean = across.T @ self._solved
        known = numpy.linalg.solve(self._root, across)
        spread = numpy.sqrt(numpy.maximum(self._kernel.variance - (known * known).sum(axis=0), 1e-9))
        return mean * self._unit + self._mean, spread * self._unit

    def expected_improvement(self, settings: Sequence[Parameters]) -> Numbers:
        """How much each setting is expected to gain beyond the best one looked at (Jones et al. 1998)."""
        mean, spread = self.predict(settings)
        above = (mean - self._best) / spread
        chance = 0.5 * (1.0 + numpy.array([math.erf(each / math.sqrt(2.0)) for each in above]))
        density = numpy.exp(-0.5 * above * above) / math.sqrt(2.0 * math.pi)
        improvement: Numbers = spread * (above * chance + density)
        return improvement

    # --- how alike settings are ---------------------------------------------------------------------------------------

    def _placed(self, settings: Sequence[Parameters]) -> Numbers:
        """settings x parameters, each from 0 to 1 (a choice without order: its number); NaN where it does not apply."""
        return numpy.array(
            [
                [
                    _place(each, parameters[name]) if name in parameters else math.nan
                    for name, each in self._ranges.items()
                ]
                for parameters in settings
            ]
        )

    def _alike(self, others: Numbers) -> Numbers:
        """parameters x looks x others, from 0 to 1; where a parameter applies to neither, they are alike in it."""
        near, far = self._places.T[:, :, None], others.T[:, None, :]
        apart = near - far
        unordered = numpy.array([isinstance(each, Choice) and not each.ordered for each in self._ranges.values()])
        alike = numpy.where(
            unordered[:, None, None], (apart == 0.0).astype(float), numpy.exp(-0.5 * (apart / LENGTH) ** 2)
        )
        neither = numpy.isnan(near) & numpy.isnan(far)
        result: Numbers = numpy.where(neither, 1.0, numpy.where(numpy.isnan(apart), 0.0, alike))
        return result

    # --- fitting ------------------------------------------------------------------------------------------------------

    def _factors(self, alike: Numbers, kernel: _Kernel) -> tuple[Numbers, Numbers]:
        """The Cholesky factor of the looks' covariance, and the covariance's inverse times the gains."""
        root = numpy.linalg.cholesky(kernel.covariance(alike) + kernel.noise * numpy.diag(self._noisier))
        return root, numpy.linalg.solve(root.T, numpy.linalg.solve(root, self._gains))

    def _likelihood(self, alike: Numbers, kernel: _Kernel) -> float:
        """ln of the probability of the looks and of the weights, but for a constant."""
        root, solved = self._factors(alike, kernel)
        unlikely = float((numpy.log(kernel.weights * len(kernel.weights)) ** 2).sum()) / (2.0 * WEIGHT_SPREAD**2)
        return float(-0.5 * self._gains @ solved - numpy.log(numpy.diag(root)).sum()) - unlikely

    def _most_likely(self, alike: Numbers) -> _Kernel:
        """One number after the other is set to the most likely of its values, twice around."""
        count = len(alike)
        best = _Kernel(weights=numpy.full(count, 1.0 / count), together=0.1, noise=0.2)
        likelihood = self._likelihood(alike, best)
        weights = [partial(_weight, place) for place in range(count)]
        numbers: list[Callable[[_Kernel], list[_Kernel]]] = [_noise, _together, *weights]
        for values_of in numbers * SWEEPS:
            for kernel in values_of(best):
                found = self._likelihood(alike, kernel)
                if found > likelihood:
                    best, likelihood = kernel, found
        return best


def _noise(kernel: _Kernel) -> list[_Kernel]:
    return [replace(kernel, noise=value) for value in NOISES]


def _together(kernel: _Kernel) -> list[_Kernel]:
    return [replace(kernel, together=value) for value in TOGETHER]


def _weight(place: int, kernel: _Kernel) -> list[_Kernel]:
    count = len(kernel.weights)
    this = numpy.arange(count) == place
    return [replace(kernel, weights=numpy.where(this, value / count, kernel.weights)) for value in WEIGHTS]


def _place(each: Range, value: ParameterValue) -> float:
    drawn = drawn_from(each, value)
    if isinstance(each, Choice):
        return drawn / (len(each.values) - 1) if each.ordered else drawn
    if each.log:
        return math.log(drawn / each.low) / math.log(each.high / each.low)
    return (drawn - each.low) / (each.high - each.low)
