"""A request, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratchet_agent.plan import Request
from ratchet_agent.response import Response

if TYPE_CHECKING:
    from ratchet_agent.connection import Connection

NO_STAMP = 0
# The classes of docs/csv.md; a row stores the position.
ERRORS = ("", "timeout", "connect", "tls", "reset", "eof", "stale", "truncated", "protocol", "status", "local")


class Exchange:
    """One request and what became of it. Times are monotonic nanoseconds, stamps are realtime nanoseconds.

    `sent_ns`: just before the call that handed the request's last byte to the kernel. `first_ns` and `first_stamp_ns`:
    the first read of the response.
    """

    __slots__ = (
        "connection",
        "done",
        "due_ns",
        "error",
        "finished_ns",
        "first_ns",
        "first_stamp_ns",
        "request",
        "response",
        "reused",
        "sent_ns",
        "sequence",
        "stamp_ns",
        "started_ns",
    )

    def __init__(self, sequence: int, request: Request, due_ns: int, *, capture: bool = False) -> None:
        self.sequence = sequence
        self.request = request
        self.due_ns = due_ns
        self.started_ns = 0
        self.finished_ns = 0
        self.sent_ns = 0
        self.first_ns = 0
        self.first_stamp_ns = NO_STAMP
        self.stamp_ns = NO_STAMP
        self.response = Response(no_body=request.method == "HEAD", capture=capture)
        self.connection: Connection | None = None
        self.reused = 0
        self.error = ""
        self.done = False

    def again(self) -> None:
        """Forget the connection that turned out to be closed."""
        self.connection = None
        self.reused = 2
