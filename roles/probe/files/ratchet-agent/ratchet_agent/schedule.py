"""Which request comes when, and which arm has its turn; what is left to chance is drawn from the plan's seed."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from ratchet_agent.plan import Plan

# One arm's turn in a saturated duet: long enough to hold many answers, short enough that both arms share the weather.
TURN_SECONDS = 0.1


class Mix:
    """Which request comes when: a smooth weighted round robin, entered at a point drawn for each pair."""

    def __init__(self, plan: Plan) -> None:
        divisor = math.gcd(*plan.weights)
        weights = [weight // divisor for weight in plan.weights]
        total = sum(weights)
        current = [0] * len(weights)
        self.cycle: list[int] = []
        for _ in range(total):
            current = [value + weight for value, weight in zip(current, weights, strict=True)]
            chosen = current.index(max(current))
            current[chosen] -= total
            self.cycle.append(chosen)
        self.offsets = [self._offset(plan, pair) for pair in range(1, len(plan.pairs) + 1)]

    def _offset(self, plan: Plan, pair: int) -> int:
        key = f"{plan.seed}/{plan.host}/{plan.trial}/{pair}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % len(self.cycle)

    def sequence(self, pair: int) -> Iterator[int]:
        """The requests of either block of a pair without end, as positions in the workload's list."""
        offset = self.offsets[pair - 1]
        return itertools.cycle(self.cycle[offset:] + self.cycle[:offset])


def slot_order(plan: Plan, pair: int, count: int) -> bytes:
    """Which instance (0: A, 1: B) each turn of a duet's slots belongs to; two turns a slot, their order drawn."""
    turns = bytearray()
    for slot in range(count):
        if slot % 256 == 0:
            drawn = hashlib.sha256(f"{plan.seed}/{plan.host}/{plan.trial}/{pair}/slots/{slot // 256}".encode()).digest()
        first = drawn[slot % 256 // 8] >> (slot % 8) & 1
        turns += bytes((first, 1 - first))
    return bytes(turns)


class Turn(NamedTuple):
    """One stretch of saturating one arm: the position of its lane, how long it sends, whether its rows count."""

    position: int
    seconds: float
    counted: bool


def turns_of(plan: Plan, pair: int) -> list[Turn]:
    """The turns of a saturated pair, the burn-in's first; in a duet both arms share the block, their order is drawn."""
    slots = max(1, round(plan.block_seconds / (2 * TURN_SECONDS))) if plan.duet else 1
    width = 2 if plan.duet else 1
    burn_in = 1 if plan.burn_in_seconds else 0
    order = slot_order(plan, pair, burn_in + slots) if plan.duet else bytes(burn_in + slots)
    return [
        Turn(position, plan.block_seconds / slots / width, True)
        if number >= burn_in * width
        else Turn(position, plan.burn_in_seconds / width, False)
        for number, position in enumerate(order)
    ]
