"""Synthetic hosts for `decision_quality`: half an hour of what a probe would see, and how the designs look at it.

A host is the logarithm of its latency over 1,800 seconds. What one block reads off it carries noise of its own. Noise
was set to what was measured on lab hosts: a pair of a switchback (two blocks of 2 s, reloaded) has a standard deviation
of 6 to 17 %, a pair of a duet (1 s, both arms in the same second) of 0.9 to 1.5 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

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


@dataclass(frozen=True)
class World:
    """A kind of host.

    Args:
        level: `(generator, runs)` -> log latency, runs x 1,800 seconds.
        transient: mean of the extra log latency, exponentially distributed, of a block that follows a reload.
        block_noise: standard deviation of what one block of 2 s on the live instance reads.
        duet_noise: standard deviation of a duet's paired gain.
    """

    name: str
    level: Callable[[Generator, int], Floats]
    transient: float = 0.0
    block_noise: float = 0.042
    duet_noise: float = 0.012


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
    World("iid", _steady),
    World("drift", _drift),
    World("bursts", _bursts),
    World("periodic", _periodic),
    World("reloads", _steady, transient=0.06),
    World("noisy", _steady, block_noise=0.12, duet_noise=0.015),
)


def switchback_gains(draw: Generator, world: World, level: Floats, effect: float) -> Floats:
    """The gains of a switchback on these hosts, runs x 345: the order in each pair is drawn; effect is a fraction."""
    runs = len(level)
    pair = numpy.arange(SWITCHBACK_PAIRS)
    half = SWITCHBACK_PAIR_SECONDS / 2
    blocks = [_read(draw, world, level, pair * SWITCHBACK_PAIR_SECONDS + offset) for offset in (0.0, half)]
    control_first = draw.random((runs, SWITCHBACK_PAIRS)) < 0.5
    lead = blocks[0] - blocks[1]
    gains: Floats = numpy.where(control_first, lead, -lead) - numpy.log1p(-effect)
    return gains


def _read(draw: Generator, world: World, level: Floats, starts: numpy.typing.NDArray[numpy.floating]) -> Floats:
    first = starts.astype(int)
    truth = (level[:, first] + level[:, first + BLOCK_SECONDS - 1]) / 2
    read: Floats = truth + draw.normal(0, world.block_noise, truth.shape)
    return read + draw.exponential(world.transient, read.shape) if world.transient else read


def duet_gains(draw: Generator, world: World, level: Floats, effect: float) -> Floats:
    """The gains of a duet on these hosts, runs x 45: what both arms live through cancels, but for a share of it."""
    runs = len(level)
    start = (numpy.arange(DUET_PAIRS) * DUET_PAIR_SECONDS).astype(int)
    change = level[:, start + 1] - level[:, start]
    on_a = numpy.where(draw.random((runs, DUET_PAIRS)) < 0.5, 1.0, -1.0)
    uneven = on_a * (_INSTANCE_BIAS + _DUET_SHARE * change)
    transient = draw.laplace(0, world.transient * _DUET_SHARE, uneven.shape) if world.transient else 0.0
    gains: Floats = uneven + transient + draw.normal(0, world.duet_noise, uneven.shape) - numpy.log1p(-effect)
    return gains


def before_after(draw: Generator, world: World, level: Floats, effect: float) -> Floats:
    """Log latency of each second, the baseline in the first 15 minutes and the variant in the second: runs x 1,800."""
    seen = level + draw.normal(0, world.block_noise * numpy.sqrt(BLOCK_SECONDS), level.shape)
    seen[:, SECONDS // 2 :] += numpy.log1p(-effect)
    return seen
