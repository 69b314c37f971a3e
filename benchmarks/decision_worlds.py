"""Hosts for `decision_quality`, and how the designs look at them. The worlds here are synthetic; `recorded_worlds` has
those of real traces.

A synthetic host is the logarithm of its latency over 1,800 seconds. What one block reads off it carries noise of its
own. Noise was set to what was measured on lab hosts: a pair of a switchback (two blocks of 2 s, reloaded) has a
standard deviation of 6 to 17 %, a pair of a duet (1 s, both arms in the same second) of 0.9 to 1.5 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy
import numpy.typing

Floats: TypeAlias = numpy.typing.NDArray[numpy.float64]
Generator: TypeAlias = numpy.random.Generator

SECONDS = 1800
BLOCK_SECONDS = 2
# Block, burn-in and switch, twice.
SWITCHBACK_PAIR_SECONDS = 5.2
DUET_PAIR_SECONDS = 1.4
# As many pairs as a schedule plans. A duet has the default, 40 and 5 that confirm; a switchback the peers' half hour.
SWITCHBACK_PAIRS = 345
DUET_PAIRS = 45

# Two shadow instances are never quite alike.
_INSTANCE_BIAS = 0.006
# What a duet still sees of a level that changes within its block.
_DUET_SHARE = 0.05


class World(Protocol):
    """A kind of host. Effects are fractions: 0.05 makes a variant's requests 5 % faster."""

    @property
    def name(self) -> str: ...
    def hosts(self, draw: Generator, runs: int, /) -> Floats:
        """What the world has to know of each host: one row a host."""

    def duet_gains(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        """The gains of a duet on these hosts, runs x 45."""

    def switchback_gains(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        """The gains of a switchback on these hosts, runs x 345."""

    def before_after(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        """Log latency of each second, the baseline in the first 15 minutes, then the variant: runs x 1,800."""


def randomised(draw: Generator, shown: Floats, effect: float) -> Floats:
    """Gains of what hosts show with control in the first block (on instance A): a coin for each pair puts it there."""
    gains: Floats = numpy.where(draw.random(shown.shape) < 0.5, shown, -shown) - numpy.log1p(-effect)
    return gains


def halfway(seen: Floats, effect: float) -> Floats:
    """Log latency of each second (runs x 1,800) with the variant in the second half; in place."""
    seen[:, SECONDS // 2 :] += numpy.log1p(-effect)
    return seen


@dataclass(frozen=True)
class SyntheticWorld:
    """A made-up kind of host.

    Args:
        hosts: `(generator, runs)` -> log latency, runs x 1,800 seconds.
        transient: mean of the extra log latency, exponentially distributed, of a block that follows a reload.
        block_noise: standard deviation of what one block of 2 s on the live instance reads.
        duet_noise: standard deviation of a duet's paired gain.
    """

    name: str
    hosts: Callable[[Generator, int], Floats]
    transient: float = 0.0
    block_noise: float = 0.042
    duet_noise: float = 0.012

    def duet_gains(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        """What both arms live through cancels, but for a share of it."""
        start = (numpy.arange(DUET_PAIRS) * DUET_PAIR_SECONDS).astype(int)
        change = hosts[:, start + 1] - hosts[:, start]
        # The noise is symmetric: the coin need not turn it.
        gains = randomised(draw, _INSTANCE_BIAS + _DUET_SHARE * change, effect)
        if self.transient:
            gains += draw.laplace(0, self.transient * _DUET_SHARE, gains.shape)
        return gains + draw.normal(0, self.duet_noise, gains.shape)

    def switchback_gains(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        starts = numpy.arange(SWITCHBACK_PAIRS) * SWITCHBACK_PAIR_SECONDS
        first, second = (self._read(draw, hosts, starts + offset) for offset in (0.0, SWITCHBACK_PAIR_SECONDS / 2))
        return randomised(draw, first - second, effect)

    def _read(self, draw: Generator, hosts: Floats, starts: numpy.typing.NDArray[numpy.floating]) -> Floats:
        first = starts.astype(int)
        truth = (hosts[:, first] + hosts[:, first + BLOCK_SECONDS - 1]) / 2
        read: Floats = truth + draw.normal(0, self.block_noise, truth.shape)
        return read + draw.exponential(self.transient, read.shape) if self.transient else read

    def before_after(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        return halfway(hosts + draw.normal(0, self.block_noise * numpy.sqrt(BLOCK_SECONDS), hosts.shape), effect)


def _steady(_: Generator, runs: int) -> Floats:
    return numpy.zeros((runs, SECONDS))


def _drift(draw: Generator, runs: int) -> Floats:
    """An autoregressive level (10 minutes, 7 %) on a daily curve of 30 %."""
    step = 10
    steps = SECONDS // step
    kept = numpy.exp(-step / 600.0)
    level = numpy.empty((runs, steps))
    level[:, 0] = draw.normal(0, 0.07, runs)
    for now in range(1, steps):
        level[:, now] = kept * level[:, now - 1] + draw.normal(0, 0.07 * numpy.sqrt(1 - kept**2), runs)
    day = draw.uniform(0, 2 * numpy.pi, (runs, 1)) + 2 * numpy.pi * numpy.arange(SECONDS) / 86_400
    return numpy.repeat(level, step, axis=1) + 0.3 * numpy.sin(day)


def _bursts(draw: Generator, runs: int) -> Floats:
    """A burst every two minutes on average, 20 s long on average, that adds 10 to 60 %."""
    level = numpy.zeros((runs, SECONDS))
    for run, count in enumerate(draw.poisson(SECONDS / 120, runs)):
        for begin, length, height in zip(
            draw.integers(0, SECONDS, count),
            draw.exponential(20, count).astype(int) + 1,
            draw.uniform(0.1, 0.5, count),
            strict=True,
        ):
            level[run, begin : begin + length] += height
    return level


def _periodic(draw: Generator, runs: int) -> Floats:
    """A job of 40 s every two minutes that adds 25 %."""
    phase = draw.integers(0, 120, (runs, 1))
    busy = (numpy.arange(SECONDS) + phase) % 120 < 40
    return numpy.where(busy, 0.25, 0.0)


WORLDS = (
    SyntheticWorld("iid", _steady),
    SyntheticWorld("drift", _drift),
    SyntheticWorld("bursts", _bursts),
    SyntheticWorld("periodic", _periodic),
    SyntheticWorld("reloads", _steady, transient=0.06),
    SyntheticWorld("noisy", _steady, block_noise=0.12, duet_noise=0.015),
)
