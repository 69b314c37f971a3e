"""The timed stretches in which users ask."""

from __future__ import annotations

import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratchet_agent.clock import CLOCK_STEP_NS, clock_offset, monotonic_ns
from ratchet_agent.lane import Stretch
from ratchet_agent.live_log import LiveLog, parse_logged
from ratchet_agent.live_rows import LiveRows
from ratchet_agent.loop import WAKE_SECONDS, Loop
from ratchet_agent.plan import Plan
from ratchet_agent.summary import CLOCK_WAS_SET, UNTOLD, latency_figures

LOG_WAS_CUT = "the live log was cut while it was read"


class Traffic:
    """Watches blocks of live traffic pass, then reads what they left in the log.

    Args:
        interrupted: asked at every wake-up; true ends the block at once.
    """

    def __init__(self, loop: Loop, plan: Plan, path: Path, interrupted: Callable[[], bool]) -> None:
        self._loop = loop
        self._plan = plan
        self._log = LiveLog(path)
        self._interrupted = interrupted
        self._offset = 0
        self._first_ms = self._start_ms = self._end_ms = 0
        self.clock_set = False
        self.malformed = 0
        self.served = 0

    def watch(self) -> Stretch | None:
        """Wait for burn-in and block to pass. None when it was interrupted."""
        self._log.skip()
        self._offset = clock_offset()
        began = monotonic_ns()
        self._first_ms = (began + self._offset) // 1_000_000 + 1
        self._start_ms = self._first_ms + round(self._plan.burn_in_seconds * 1000)
        self._end_ms = self._start_ms + round(self._plan.block_seconds * 1000)
        if not self._wait_until(self._end_ms * 1_000_000 - self._offset):
            return None
        return Stretch(self._start_ms / 1000, round((monotonic_ns() - began) / 1e9, 6), clock_set=False)

    def collect(self, rows: LiveRows) -> bool:
        """Fill the rows, once what took no longer than the timeout is in the log. False when it was interrupted."""
        slowest_ns = self._plan.timeout_us * 1000 + round(self._plan.log_flush_seconds * 1e9)
        if not self._wait_until(self._end_ms * 1_000_000 - self._offset + slowest_ns):
            return False
        self.malformed = self.served = 0
        for line in self._log.lines():
            logged = parse_logged(line)
            if logged is None:
                self.malformed += 1
                continue
            self.served += self._first_ms <= logged.begun_ms + logged.took_ms < self._end_ms
            if self._first_ms <= logged.begun_ms < self._end_ms:
                rows.add(logged)
        self.clock_set = abs(clock_offset() - self._offset) > CLOCK_STEP_NS
        rows.finish(self._start_ms)
        return True

    def summarise(self, rows: LiveRows) -> dict[str, Any]:
        """The part of a block's summary that follows from its rows (docs/csv.md)."""
        errors = Counter(error for logged in rows.counted() if (error := rows.error(logged)))
        statuses = Counter(logged.status for logged in rows.counted())
        classes: dict[str, array.array[int]] = {}
        for logged in rows.counted():
            classes.setdefault(logged.label, array.array("q")).append(rows.latency_us(logged))
        figures = latency_figures(rows.objectives())
        requests = int(figures["requests"])
        reasons = []
        if requests < self._plan.minimum_requests:
            reasons.append(
                f"{requests} requests in {self._plan.block_seconds:g} s of live traffic "
                f"(minimum_requests {self._plan.minimum_requests})"
            )
        if self.malformed:
            reasons.append(f"{self.malformed} lines of the live log are not in its format")
        if self._log.was_cut:
            reasons.append(LOG_WAS_CUT)
        if self.clock_set:
            reasons.append(CLOCK_WAS_SET)
        return {
            **figures,
            **UNTOLD,
            "paired_gain": None,
            "errors": sum(errors.values()),
            "error_classes": dict(sorted(errors.items())),
            "statuses": {str(status): n for status, n in sorted(statuses.items()) if 100 <= status < 600},
            "user_p99_us": figures["p99_us"],
            "lag_p99_us": 0,
            "probe_busy_share": None,
            "achieved_rate": round(requests / self._plan.block_seconds, 2),
            "bytes": sum(logged.size for logged in rows.counted()),
            "valid": not reasons,
            "invalid_reason": "; ".join(reasons),
            "classes": {label: latency_figures(took) for label, took in sorted(classes.items())},
        }

    def _wait_until(self, deadline_ns: int) -> bool:
        """Whether that time of the monotonic clock was reached without an interruption."""
        while (left := deadline_ns - monotonic_ns()) > 0:
            if self._interrupted():
                return False
            self._log.keep_up()
            self._loop.step(min(WAKE_SECONDS, left / 1e9))
        return True
