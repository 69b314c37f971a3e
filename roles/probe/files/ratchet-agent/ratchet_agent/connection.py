"""A TCP connection to the server."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

from ratchet_agent.clock import monotonic_ns
from ratchet_agent.exchange import NO_STAMP, Exchange
from ratchet_agent.response import ProtocolError

if TYPE_CHECKING:
    from ratchet_agent.client import Client

# Linux' SO_TIMESTAMPNS and SCM_TIMESTAMPNS (asm-generic); Python 3.11 has no name for them.
SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("@ll")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_STAMP.size)
_READ = select.EPOLLIN | select.EPOLLRDHUP
SERVER_REFUSES = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ECONNABORTED}


class Connection:
    """One non-blocking TCP connection to the server; carries one exchange at a time."""

    __slots__ = ("_client", "_connecting", "_events", "_outgoing", "_socket", "exchange", "number", "open", "served")

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self.number = number
        self.served = 0
        self.exchange: Exchange | None = None
        self._outgoing = b""
        self._events = _READ
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.open = True
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        client.loop.add(self._socket.fileno(), self.ready, _READ)
        code = self._socket.connect_ex(client.address)
        if code not in {0, errno.EINPROGRESS}:
            self.close()
            raise OSError(code, os.strerror(code))
        self._connecting = True

    def submit(self, exchange: Exchange) -> None:
        """Send the exchange's request. The client hears of the outcome, perhaps before this returns."""
        self.exchange = exchange
        exchange.connection = self
        self.served += 1
        self._send(exchange.request.wire)

    def close(self) -> None:
        if self.open:
            self.open = False
            self._client.loop.remove(self._socket.fileno())
            self._socket.close()

    def ready(self, events: int) -> None:
        """Handle what epoll reports."""
        if self._outgoing and events & select.EPOLLOUT:
            self._flush()
        if self.open and events & ~select.EPOLLOUT:
            self._receive()

    def _send(self, data: bytes) -> None:
        self._outgoing += data
        self._flush()

    def _flush(self) -> None:
        now = monotonic_ns()
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._broken(error)
            return
        if sent:
            self._connecting = False
            self._outgoing = self._outgoing[sent:]
            if not self._outgoing and self.exchange is not None:
                self.exchange.sent_ns = now
        events = _READ | select.EPOLLOUT if self._outgoing else _READ
        if events != self._events:
            self._events = events
            self._client.loop.change(self._socket.fileno(), events)

    def _receive(self) -> None:
        client = self._client
        try:
            count, ancillary, _, _ = self._socket.recvmsg_into(client.buffers, _ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(error)
            return
        now = monotonic_ns()
        if count == 0:
            self._ended(now, "eof")
            return
        stamp = NO_STAMP
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _STAMP.size:
                seconds, nanoseconds = _STAMP.unpack(data)
                stamp = seconds * 1_000_000_000 + nanoseconds
        self._received(count, now, stamp)

    def _received(self, count: int, now: int, stamp: int) -> None:
        """`count` bytes of the response stand in the client's buffer."""
        self._deliver(self._client.buffer, count, now, stamp)

    def _deliver(self, data: bytes | bytearray, count: int, now: int, stamp: int) -> None:
        exchange = self.exchange
        if exchange is None:
            # Nobody asked: whatever it is, this connection is of no more use.
            self.close()
            return
        if not exchange.response.size:
            exchange.first_ns, exchange.first_stamp_ns = now, stamp
        try:
            complete = exchange.response.feed(data, count)
        except ProtocolError:
            self._finish(now, "protocol")
            return
        if complete:
            exchange.stamp_ns = stamp
            self._finish(now, "")

    def _ended(self, now: int, error: str) -> None:
        """The server closed or reset the connection."""
        exchange = self.exchange
        if exchange is None:
            self.close()
        elif exchange.response.size:
            if error == "eof" and exchange.response.ends_at_eof():
                self._finish(now, "")
            else:
                self._finish(now, "truncated" if error == "eof" else error)
        else:
            self._finish(now, error)

    def _broken(self, error: OSError) -> None:
        if self._connecting:
            self._finish(monotonic_ns(), "connect" if error.errno in SERVER_REFUSES else "reset")
        else:
            self._ended(monotonic_ns(), "reset")

    def _finish(self, now: int, error: str) -> None:
        exchange = self.exchange
        self.exchange = None
        if error or exchange is None or not exchange.response.persistent or not self._client.keepalive:
            self.close()
        if exchange is not None:
            self._client.finished(self, exchange, now, error)
