"""An arm in the block under way, and the stretch in which it was measured."""

from __future__ import annotations

from typing import NamedTuple

from ratchet_agent.client import Client
from ratchet_agent.live_rows import LiveRows
from ratchet_agent.rows import Rows


class Lane:
    """One arm in the block under way: its rows, where its server listens, its client.

    Args:
        status_port: of stub_status; None when the server has none.
        instance: "a" or "b" in a duet.
    """

    def __init__(
        self, rows: Rows | LiveRows, configuration: str, port: int, status_port: int | None, instance: str | None
    ) -> None:
        self.rows = rows
        self.configuration = configuration
        self.port = port
        self.status_port = status_port
        self.instance = instance
        self.client: Client | None = None
        self.bodies: dict[str, str] = {}

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


class Stretch(NamedTuple):
    """When a timed stretch of probing ran: seconds since the epoch, seconds, and whether the clock was set in it.

    Of a saturation also how busy the probe was in the turns of each lane, as a share.
    """

    started_at: float
    seconds: float
    clock_set: bool
    busy_shares: tuple[float, ...] = ()

    def busy_share(self, position: int) -> float | None:
        return self.busy_shares[position] if self.busy_shares else None
