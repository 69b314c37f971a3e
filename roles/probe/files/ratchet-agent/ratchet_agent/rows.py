"""The rows of a block that the probe asked for."""

from __future__ import annotations

import array
import heapq
from collections.abc import Iterator

from ratchet_agent.errors import AgentError
from ratchet_agent.exchange import ERRORS, NO_STAMP, Exchange
from ratchet_agent.plan import Plan

_NONE = -1
# In the order of the CSV; the controller has a list of its own. The probe's rows and those of live traffic begin alike.
_SHARED = (
    "pair", "block", "arm", "seq", "intended_us", "lag_us", "latency_us", "kernel_us", "status", "bytes", "conn",
    "reused", "error",
)  # fmt: skip
COLUMNS = (*_SHARED, "first_byte_us")
LIVE_COLUMNS = (*_SHARED, "class")
# Of CSV and sidecar: another with each change of the columns. 2 came with first_byte_us.
FORMAT = 2
# Rows of a pair that are kept in memory at once: more than 600 s at the highest rate, some 225 MB of arrays. Only a
# saturation, whose rows nobody knows beforehand, can have more.
MOST_ROWS = 4_000_000


class Rows:
    """The rows of one arm's block, by sequence: a few arrays, since a block may have a million rows.

    In a saturation their number is not known beforehand, and the block's start only when the burn-in has been answered.
    """

    def __init__(self, plan: Plan, pair: int, block: int, arm: str) -> None:
        self.pair = pair
        self.block = block
        self.arm = arm
        self.burn_in = plan.burn_in
        self._plan = plan
        count = 0 if plan.saturation else plan.burn_in + plan.counted
        self.intended = array.array("q", bytes(8 * count))
        self.lag = array.array("q", bytes(8 * count))
        self.latency = array.array("q", bytes(8 * count))
        self.kernel = array.array("q", bytes(8 * count))
        self.first_byte = array.array("i", bytes(4 * count))
        self.size = array.array("q", bytes(8 * count))
        self.connection = array.array("q", bytes(8 * count))
        self.status = array.array("H", bytes(2 * count))
        self.reused = bytearray(count)
        self.error = bytearray(count)

    def __len__(self) -> int:
        return len(self.error)

    def extend(self) -> int:
        """Make room for one more row; returns its sequence. Raises AgentError("probe") when they are too many."""
        if len(self.error) >= MOST_ROWS // 2:
            raise AgentError(
                "probe", f"over {MOST_ROWS // 2} requests in one block of a saturation; plan shorter blocks"
            )
        for column in (self.intended, self.lag, self.latency, self.kernel, self.size, self.connection):
            column.append(0)
        self.first_byte.append(0)
        self.status.append(0)
        self.reused.append(0)
        self.error.append(0)
        return len(self.error) - 1

    def begin_at(self, start_us: int) -> None:
        """Let the block start so much later than its rows were told."""
        self.intended = array.array("q", [intended - start_us for intended in self.intended])

    def record(self, exchange: Exchange, start_ns: int, realtime_ns: int) -> None:
        """Keep what became of an exchange.

        Args:
            start_ns: the block's start on the monotonic clock.
            realtime_ns: what the real-time clock is ahead of the monotonic one.
        """
        row = exchange.sequence
        due = exchange.due_ns
        self.intended[row] = (due - start_ns) // 1000
        self.lag[row] = (exchange.started_ns - due) // 1000
        kernel = first_byte = _NONE
        if exchange.error:
            latency = self._plan.timeout_us
        else:
            latency = (exchange.finished_ns - due) // 1000
            if exchange.stamp_ns != NO_STAMP:
                stamped = (exchange.stamp_ns - realtime_ns - due) // 1000
                if 0 <= stamped <= latency:
                    kernel = stamped
            first_byte = _first_byte(exchange, realtime_ns, latency if kernel == _NONE else kernel)
        self.latency[row] = latency
        self.kernel[row] = kernel
        self.first_byte[row] = first_byte
        self.size[row] = exchange.response.size
        self.connection[row] = exchange.connection.number if exchange.connection is not None else 0
        self.status[row] = exchange.response.status
        self.reused[row] = exchange.reused
        self.error[row] = ERRORS.index(exchange.error)

    def forget_stamps(self) -> None:
        """The host's clock was set: no kernel stamp of this block can be trusted."""
        self.kernel = array.array("q", [_NONE]) * len(self)
        self.first_byte = array.array("i", [_NONE]) * len(self)

    def line(self, row: int) -> str:
        """One row as it stands in the CSV."""
        kernel, first_byte = self.kernel[row], self.first_byte[row]
        return (
            f"{self.pair},{self.block},{self.arm[0]},{row},{self.intended[row]},{self.lag[row]},{self.latency[row]},"
            f"{'' if kernel == _NONE else kernel},{self.status[row]},{self.size[row]},{self.connection[row]},"
            f"{self.reused[row]},{ERRORS[self.error[row]]},{'' if first_byte == _NONE else first_byte}\n"
        )

    def objectives(self) -> array.array[int]:
        """What the arms are compared by, in microseconds, one a counted row in order of sequence."""
        first = self.burn_in
        kernels, latencies = self.kernel[first:], self.latency[first:]
        return array.array(
            "q", (latency if kernel == _NONE else kernel for kernel, latency in zip(kernels, latencies, strict=True))
        )

    def first_bytes(self) -> array.array[int]:
        """When each counted row's response began; what is not known counts as the whole time of the request."""
        told = self.first_byte[self.burn_in :]
        return array.array(
            "q", (whole if first == _NONE else first for first, whole in zip(told, self.objectives(), strict=True))
        )


def _first_byte(exchange: Exchange, realtime_ns: int, most_us: int) -> int:
    """Microseconds from the request's last byte to the response's first: by the kernel, else by the first read.

    None when neither is within the time of the whole request, as where the response began before it was all sent.
    """
    for first_ns in (exchange.first_stamp_ns - realtime_ns, exchange.first_ns):
        took = (first_ns - exchange.sent_ns) // 1000
        if 0 <= took <= most_us:
            return took
    return _NONE


def sending_order(blocks: list[Rows], *, counted: bool = False) -> Iterator[tuple[int, int, int]]:
    """(intended_us, position of the block, sequence) of the rows of a saturation, as they were sent.

    Each block has them in that order already, so that nothing need be sorted, nor held beside the rows.
    """

    def sent(position: int, rows: Rows) -> Iterator[tuple[int, int, int]]:
        for row in range(rows.burn_in if counted else 0, len(rows)):
            yield rows.intended[row], position, row

    return heapq.merge(*(sent(position, rows) for position, rows in enumerate(blocks)))
