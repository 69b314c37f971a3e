"""The rows of a block of live traffic."""

from __future__ import annotations

from ratchet_agent.live_log import Logged
from ratchet_agent.plan import Plan


class LiveRows:
    """The rows of a block of live traffic, in the order in which the requests began."""

    def __init__(self, plan: Plan, pair: int, block: int, arm: str) -> None:
        self.pair = pair
        self.block = block
        self.arm = arm
        self._timeout_us = plan.timeout_us
        self._start_ms = 0
        self._found: list[Logged] = []

    def __len__(self) -> int:
        return len(self._found)

    def fill(self, found: list[Logged], start_ms: int) -> None:
        """Args: found: what began within burn-in and block; start_ms: when the block began."""
        self._start_ms = start_ms
        self._found = sorted(found, key=lambda logged: logged.begun_ms)

    def counted(self) -> list[Logged]:
        """Without the burn-in."""
        return [logged for logged in self._found if logged.begun_ms >= self._start_ms]

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
        logged = self._found[row]
        status = logged.status if 100 <= logged.status < 600 else 0
        return (
            f"{self.pair},{self.block},{self.arm[0]},{row},{(logged.begun_ms - self._start_ms) * 1000},0,"
            f"{self.latency_us(logged)},,{status},{logged.size},0,{int(logged.reused)},{self.error(logged)},"
            f"{logged.label}\n"
        )

    def objectives(self) -> list[int]:
        return [self.latency_us(logged) for logged in self.counted()]
