"""The controller dies: killed at random instants of a run, and at each of its step boundaries."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.faults import moments
from tests.faults.fault import AT_ONCE, KILLED, Fault, Moment, Scene

# A run with every step takes about so long here; the resumption of a broken one is shorter, so most instants are hit.
RUN_SECONDS = 30.0

BOUNDARIES: list[Moment] = [
    moments.step("checking the hosts"),
    moments.step("plan recorded"),
    moments.step("staging"),
    moments.event("trial-started"),
    moments.pairs(1),
    moments.action("confirm"),
    moments.step("checking on the live instance"),
    moments.SOAK,
    moments.event("trial-ended"),
    moments.step("committing"),
    moments.event("trial-settled"),
    moments.sealed(),
    moments.step("refreshing the dashboards"),
]


def kill(scene: Scene) -> None:
    scene.run.kill()


def at_boundaries() -> Iterator[Fault]:
    """One run, killed as each step begins and resumed each time."""
    for moment in BOUNDARIES:
        yield Fault(
            name="controller killed (-9) at a step boundary", group="kill-at-steps", moment=moment, inject=kill,
            exits=frozenset({KILLED}), says=r"was broken off\n  last: .+\n  next: controller resume r-",
            seconds=AT_ONCE, experiment="keep", goes_on=True,
        )  # fmt: skip


def at_random(rng: random.Random, count: int) -> Iterator[Fault]:
    """Runs of every step, killed at instants drawn by the seed, resumed and killed again."""
    for number in range(count):
        yield Fault(
            name="controller killed (-9) at a random instant", group=f"kill-at-random-{number // 6 + 1}",
            moment=moments.seconds(rng.uniform(0.5, RUN_SECONDS)), inject=kill,
            exits=frozenset({KILLED}), says="was broken off|nothing is unfinished",
            seconds=AT_ONCE, experiment="keep", goes_on=True,
        )  # fmt: skip
