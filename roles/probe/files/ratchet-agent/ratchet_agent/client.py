"""Who sends the requests: the connections to one server."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ratchet_agent.clock import monotonic_ns
from ratchet_agent.connection import SERVER_REFUSES, Connection
from ratchet_agent.exchange import Exchange
from ratchet_agent.loop import Loop
from ratchet_agent.plan import Plan
from ratchet_agent.tls_connection import TlsConnection, tls_context

if TYPE_CHECKING:
    import ssl  # by tls_context, when it is needed

# Handshakes cost both sides much: more at once, after a stall or at a start, would only make all of them late, and the
# requests that fall due meanwhile would ask for still more. What waits keeps its intended time.
_MOST_HANDSHAKES = 8


class Client:
    """A growing pool of connections to the server under test, and the exchanges under way.

    Args:
        port: where the server listens on 127.0.0.1.
        done: called once for each exchange, when it has succeeded or failed for good.
    """

    def __init__(
        self, loop: Loop, plan: Plan, port: int, done: Callable[[Exchange], None], *, most_connections: int
    ) -> None:
        self.loop = loop
        self.keepalive = plan.keepalive
        self.address = ("127.0.0.1", port)
        self.server_name = plan.server_name
        self.tls = tls_context() if plan.scheme == "https" else None
        # Offered again on new connections, as browsers do, when each request has its own.
        self.session: ssl.SSLSession | None = None
        self.counts: Counter[str] = Counter(opened=0, stale=0, tls_full=0, tls_resumed=0)
        self.buffer = loop.buffer
        self.view = memoryview(self.buffer)
        self.buffers = [self.buffer]
        self.clear = loop.clear
        self.clear_view = memoryview(self.clear)
        self._kind = TlsConnection if self.tls else Connection
        self._timeout_ns = plan.timeout_us * 1000
        self._done = done
        self._most_connections = most_connections
        self._handshakes = 0
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._queue: deque[Exchange] = deque()
        self._under_way: deque[Exchange] = deque()

    @property
    def quiet(self) -> bool:
        """Whether no exchange is under way."""
        return not self._under_way and not self._queue

    def submit(self, exchange: Exchange) -> None:
        """Take up an exchange now. With no connection left to open it waits, and its latency runs."""
        exchange.started_ns = monotonic_ns()
        self._under_way.append(exchange)
        self._start(exchange)

    def expire(self, now: int) -> None:
        """Fail what has been under way for longer than the timeout."""
        waiting = self._under_way
        while waiting and (waiting[0].done or waiting[0].due_ns + self._timeout_ns <= now):
            exchange = waiting.popleft()
            if not exchange.done:
                self._abandon(exchange, now)

    def close(self) -> None:
        """Close every connection; what is under way is dropped."""
        self._queue.clear()
        self._under_way.clear()
        for connection in [*self._idle, *self._busy]:
            connection.close()
        self._idle.clear()
        self._busy.clear()

    def finished(self, connection: Connection, exchange: Exchange, now: int, error: str) -> None:
        """A connection reports the end of its exchange."""
        self._busy.discard(connection)
        if connection.open:
            self._idle.append(connection)
        if error in {"eof", "reset"} and connection.served > 1 and not exchange.response.size:
            if exchange.request.method != "POST" and exchange.reused != 2:
                self.counts["stale"] += 1
                exchange.again()
                self._start(exchange, waited=True)
                return
            error = "stale"
        if not error and now - exchange.due_ns > self._timeout_ns:
            error = "timeout"
        if not error and exchange.response.status != exchange.request.expect_status:
            error = "status"
        self._settle(exchange, now, error)
        self._advance()

    def handshake_began(self) -> None:
        self._handshakes += 1

    def handshake_ended(self, resumed: bool | None) -> None:
        """A connection reports that its handshake is over; None: it failed, or was given up."""
        self._handshakes -= 1
        if resumed is not None:
            self.counts["tls_resumed" if resumed else "tls_full"] += 1
            self._advance()

    def _advance(self) -> None:
        """Start what has waited longest, if that is possible now."""
        while self._queue and not self._start(self._queue.popleft(), waited=True):
            pass

    def _start(self, exchange: Exchange, *, waited: bool = False) -> bool:
        """Give an exchange a connection, or let it wait; False when it failed at once."""
        if exchange.reused != 2:
            while self._idle:
                connection = self._idle.pop()
                if connection.open:
                    exchange.reused = 1
                    self._busy.add(connection)
                    connection.submit(exchange)
                    return True
        if len(self._busy) >= self._most_connections or self._handshakes >= _MOST_HANDSHAKES:
            (self._queue.appendleft if waited else self._queue.append)(exchange)
            return True
        try:
            connection = self._kind(self, self.counts["opened"] + 1)
        except OSError as error:
            code = "connect" if error.errno in SERVER_REFUSES else "local"
            self._settle(exchange, monotonic_ns(), code)
            return False
        self.counts["opened"] += 1
        self._busy.add(connection)
        connection.submit(exchange)
        return True

    def _abandon(self, exchange: Exchange, now: int) -> None:
        connection = exchange.connection
        if connection is not None:
            connection.exchange = None
            connection.close()
            self._busy.discard(connection)
        else:
            self._queue.remove(exchange)
        self._settle(exchange, now, "timeout")
        self._advance()

    def _settle(self, exchange: Exchange, now: int, error: str) -> None:
        exchange.done = True
        exchange.finished_ns = now
        exchange.error = error
        waiting = self._under_way
        while waiting and waiting[0].done:
            waiting.popleft()
        self._done(exchange)
