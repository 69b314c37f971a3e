"""What the controller asked for."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

# A core that is shared with a busy neighbour wakes the probe some milliseconds late now and then (p99 3 to 4 ms with
# both cores saturated). When one request in twenty is later than this, and the next one is due already, the probe
# itself shapes the block; a single late one says nothing (the p99 of a short block is its latest request).
LEAST_LAG_LIMIT_US = 5_000
# More than a valid block can hold of a second, for the room that a saturated trial may need.
MOST_RATE = 20_000


class Request(NamedTuple):
    """One kind of request, ready to be sent."""

    name: str
    method: str
    wire: bytes
    expect_status: int


class Claim(NamedTuple):
    """The run that has claimed the host, and which of its processes."""

    run: str
    generation: int


class Plan(NamedTuple):
    """What the controller asked for, checked. `document` is the plan as it came.

    `rate_kept`, `probe_busy_share`: the least share of the rate, and the largest of a saturation's turns in which the
    probe is busy, with which a block counts. `log_flush_seconds`: until a user's request is in nginx's log.
    """

    document: dict[str, Any]
    design: str
    run: str
    trial: int
    host: str
    arms: dict[str, str]
    pairs: list[tuple[str, ...]]
    block_seconds: float
    burn_in_seconds: float
    lease_seconds: int
    seed: int
    body_sample: int
    rate: float
    scheme: str
    port: int
    server_name: str
    keepalive: bool
    timeout_us: int
    requests: list[Request]
    weights: list[int]
    source: str
    minimum_requests: int
    saturation: bool
    connections_open: int
    pair_seconds: float
    bound_seconds: int
    rate_kept: float
    probe_busy_share: float
    log_flush_seconds: float
    claim: Claim | None

    @property
    def live(self) -> bool:
        """Whether the rows are what users did, read from nginx' log, and not the probe's own requests."""
        return self.source == "live"

    @property
    def duet(self) -> bool:
        """Whether both arms run at once, each on an instance of its own."""
        return self.design == "duet"

    @property
    def session_design(self) -> str:
        """How the session switches: a soak and a host of a fleet are on the live instance too."""
        return "duet" if self.duet else "switchback"

    @property
    def lag_limit_us(self) -> int:
        """How late one request in twenty may be: until the next is due, and never less than a busy core needs."""
        return max(LEAST_LAG_LIMIT_US, self.interval_ns // (2000 if self.duet else 1000))

    @property
    def interval_ns(self) -> int:
        """Nanoseconds between the requests of an arm."""
        return round(1e9 / self.rate)

    @property
    def most_rows(self) -> int:
        """Rows that a pair may have; a soak's has half as many."""
        if self.saturation:
            return round(MOST_RATE * (self.block_seconds + self.burn_in_seconds) * (1 if self.duet else 2))
        return 2 * (self.burn_in + self.counted)

    @property
    def counted(self) -> int:
        """Requests of a block that count."""
        return max(1, round(self.rate * self.block_seconds))

    @property
    def burn_in(self) -> int:
        """Requests of a block's burn-in."""
        return math.ceil(self.rate * self.burn_in_seconds)


# The arms of a pair's two blocks, or instances. In a fleet every host begins a period on control; some then change.
PAIRS_OF = {
    "switchback": (("control", "variant"), ("variant", "control")),
    "duet": (("control", "variant"), ("variant", "control")),
    "fleet": (("control", "control"), ("control", "variant")),
    "soak": (("variant",),),
}
