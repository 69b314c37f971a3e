"""Every fault, by group, in the order in which they are injected."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from tests.faults.fault import Fault
from tests.faults.groups import (
    clocks,
    commits,
    disks,
    kills,
    network,
    nginx,
    operators,
    power,
    processes,
    signals,
    upkeep,
    variants,
)
from tests.faults.moments import MID_TRIAL


def faults(rng: random.Random, *, random_kills: int) -> Iterator[Fault]:
    yield from kills.at_boundaries()
    yield from kills.at_random(rng, random_kills)
    for group in (signals, power, nginx, variants, network, processes, upkeep, commits, disks, operators, clocks):
        yield from group.faults()


SHORT_CUT = (
    "controller killed (-9) at a step boundary",
    "SIGTERM once, in every phase",
    "power cut at a switch",
    "nginx killed while the variant is live",
    "root's session killed while the variant is live",
    "the keeper stopped in mid-trial",
    "systemd reloaded every second, and nobody left but the lease",
    "an upgrade of nginx's package, and nobody left but the lease",
    "a variant that answers fast 502s (live)",
    "the CSV truncated before it is pulled",
    "the controller's disk full: the run directory",
)


def one_of_each(found: Iterable[Fault]) -> dict[str, Fault]:
    """Name -> one fault of that kind: in mid-trial where there is a choice."""
    kinds: dict[str, Fault] = {}
    for fault in found:
        if fault.name not in kinds or fault.moment is MID_TRIAL:
            kinds[fault.name] = fault
    return kinds


def short_cut() -> list[Fault]:
    """What `make test` has time for."""
    kinds = one_of_each(faults(random.Random(1), random_kills=0))
    return [kinds[name] for name in SHORT_CUT]
