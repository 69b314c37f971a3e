"""The randomised orders of a trial, from a generator that anyone can repeat with nothing but SHA-256 (docs/csv.md).

Each draw hashes what it is for, so it depends on no other draw, on no version of Python, and not on how many are drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from controller.model.blocks import Arm
from controller.model.designs import DESIGNS
from controller.model.trial import ProbeDesign

_SLOTS_PER_DIGEST = 256


def planned_pairs(
    design: ProbeDesign, seed: int, trial_number: int, host: str, count: int
) -> Sequence[tuple[Arm, ...]]:
    """What the agent's plan gives for one host: a soak is block after block of the variant, nothing is drawn."""
    if DESIGNS[design].blocks_of_a_pair == 1:
        return [("variant",)] * count
    return draw_pairs(seed, trial_number, host, count)


def draw_pairs(seed: int, trial_number: int, host: str, count: int) -> list[tuple[Arm, Arm]]:
    """The order of the arms in the first `count` pairs on one host: one fair coin a pair.

    In a duet it is the arm on shadow instance A and the arm on B. Raises ValueError for a negative count.
    """
    if count < 0:
        raise ValueError(f"cannot draw {count} pairs")
    return [_pair(seed, trial_number, host, number) for number in range(1, count + 1)]


def _pair(seed: int, trial_number: int, host: str, number: int) -> tuple[Arm, Arm]:
    digest = hashlib.sha256(f"{seed}/{host}/{trial_number}/{number}/order".encode()).digest()
    return ("variant", "control") if digest[0] & 1 else ("control", "variant")


def draw_groups(seed: int, trial_number: int, hosts: Sequence[str], count: int) -> list[frozenset[str]]:
    """The hosts that get the variant in the first `count` periods of the fleet design.

    For each period the hosts are split in two halves at random (with an odd number one is larger by a host), and a fair
    coin says which half gets the variant.
    """
    return [_group(seed, trial_number, hosts, number) for number in range(1, count + 1)]


def _group(seed: int, trial_number: int, hosts: Sequence[str], number: int) -> frozenset[str]:
    def drawn(name: str, what: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}/{trial_number}/{number}/{what}".encode()).digest()

    shuffled = sorted(hosts, key=lambda host: (drawn(host, "group"), host))
    half = len(shuffled) // 2
    return frozenset(shuffled[half:] if drawn("", "groups")[0] & 1 else shuffled[:half])


def draw_slots(seed: int, trial_number: int, host: str, pair: int) -> Iterator[bool]:
    """For slot 0, 1, 2 ... of a duet's pair (the burn-in's too): whether the request to instance B is due first."""
    part = 0
    while True:
        digest = hashlib.sha256(f"{seed}/{host}/{trial_number}/{pair}/slots/{part}".encode()).digest()
        for slot in range(_SLOTS_PER_DIGEST):
            yield bool(digest[slot // 8] >> (slot % 8) & 1)
        part += 1
