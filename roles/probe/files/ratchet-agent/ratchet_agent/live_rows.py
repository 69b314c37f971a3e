"""The rows of a block of live traffic."""

from __future__ import annotations

import array
from collections.abc import Iterator

from ratchet_agent.errors import AgentError
from ratchet_agent.live_log import Logged
from ratchet_agent.plan import Plan

MAX_CLASSES = 64


class LiveRows:
    """The rows of a block of live traffic, in the order in which they began: arrays, since they may be a million.

    They are in order, and may be asked for, once it is finished.
    """

    def __init__(self, plan: Plan, pair: int, block: int, arm: str) -> None:
        self.pair = pair
        self.block = block
        self.arm = arm
        self._timeout_us = plan.timeout_us
        self._start_ms = 0
        self._begun = array.array("q")
        self._took = array.array("q")
        self._size = array.array("q")
        self._status = array.array("H")
        self._reused = bytearray()
        self._label = bytearray()
        self._labels: list[str] = []
        self._order = array.array("I")

    def __len__(self) -> int:
        return len(self._begun)

    def add(self, logged: Logged) -> None:
        """Take up what began within burn-in and block. Raises AgentError("probe") when the classes are too many."""
        if logged.label not in self._labels:
            if len(self._labels) >= MAX_CLASSES:
                raise AgentError(
                    "probe", f"more than {MAX_CLASSES} classes of requests; keep to few (nginx_live_log_classes)"
                )
            self._labels.append(logged.label)
        self._begun.append(logged.begun_ms)
        self._took.append(logged.took_ms)
        self._size.append(logged.size)
        self._status.append(logged.status)
        self._reused.append(logged.reused)
        self._label.append(self._labels.index(logged.label))

    def finish(self, start_ms: int) -> None:
        """All has been added; the block, after its burn-in, began at `start_ms`."""
        self._start_ms = start_ms
        self._order = array.array("I", sorted(range(len(self)), key=self._begun.__getitem__))

    def _at(self, place: int) -> Logged:
        row = self._order[place]
        label = self._labels[self._label[row]]
        reused = bool(self._reused[row])
        return Logged(self._begun[row], self._took[row], self._status[row], self._size[row], reused, label)

    def counted(self) -> Iterator[Logged]:
        """Without the burn-in."""
        for place in range(len(self)):
            if self._begun[self._order[place]] >= self._start_ms:
                yield self._at(place)

    def latency_us(self, logged: Logged) -> int:
        """The timeout for a request that failed, so that a fast error never looks like a gain."""
        return self._timeout_us if self.error(logged) else logged.took_ms * 1000

    def error(self, logged: Logged) -> str:
        if logged.took_ms * 1000 > self._timeout_us:
            return "timeout"
        if not 100 <= logged.status < 600:
            return "eof"
        return "status" if logged.status >= 500 else ""

    def line(self, row: int) -> str:
        """One row as it stands in the CSV."""
        logged = self._at(row)
        status = logged.status if 100 <= logged.status < 600 else 0
        return (
            f"{self.pair},{self.block},{self.arm[0]},{row},{(logged.begun_ms - self._start_ms) * 1000},0,"
            f"{self.latency_us(logged)},,{status},{logged.size},0,{int(logged.reused)},{self.error(logged)},"
            f"{logged.label}\n"
        )

    def objectives(self) -> array.array[int]:
        return array.array("q", map(self.latency_us, self.counted()))
