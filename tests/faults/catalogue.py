"""Every fault, by group, in the order in which they are injected."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.faults.fault import Fault
from tests.faults.groups import disks, kills, network, nginx, operators, power, processes, signals, variants


def faults(rng: random.Random, *, random_kills: int) -> Iterator[Fault]:
    yield from kills.at_boundaries()
    yield from kills.at_random(rng, random_kills)
    for group in (signals, power, nginx, variants, network, processes, disks, operators):
        yield from group.faults()
