"""No request is lost at a switch: hundreds of reloads of the live instance under clients that repeat nothing."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time

from controller.lab.machine import global_options
from tests.faults.bay import Bay, BrokenHost
from tests.faults.fault import Outcome
from tests.integration.host.conftest import Session

PAUSE_SECONDS = 0.005
# Requests a switch, over both clients that keep their connection and ask all the time.
MOST_CROSSED = 0.25
PATH = "/media/64k.bin"
SIZE = 64 * 1024


class Client(threading.Thread):
    """Asks without pause and never asks twice. A connection that the server has closed between two requests, as HTTP
    allows, is opened anew; whatever goes wrong once a request is under way is a failure.

    But for one thing, which no nginx before 1.27.4 can avoid: a request that crosses the orderly close of an idle
    connection on its way, before any byte of an answer (RFC 9112, 9.3.1). `crossed` counts those apart.
    """

    def __init__(self, address: str, *, tls: bool, keepalive: bool) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._tls = tls
        self._keepalive = keepalive
        self._stopping = threading.Event()
        self.name = f"{'TLS' if tls else 'plain'}, {'kept alive' if keepalive else 'a connection a request'}"
        self.answers = 0
        self.opened = 0
        self.crossed = 0
        self._idle_before = self._answered = False
        self.failures: list[str] = []

    def run(self) -> None:
        connection: socket.socket | None = None
        while not self._stopping.is_set():
            try:
                if connection is not None and self._was_closed(connection):
                    connection.close()
                    connection = None
                self._idle_before, self._answered = connection is not None, False
                connection = connection or self._open()
                if self._ask(connection):
                    connection.close()
                    connection = None
                self.answers += 1
            except (OSError, ValueError) as error:
                if self._idle_before and not self._answered:
                    self.crossed += 1
                else:
                    self.failures.append(repr(error))
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(PAUSE_SECONDS)

    def _open(self) -> socket.socket:
        self.opened += 1
        plain = socket.create_connection((self._address, 443 if self._tls else 80), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain)

    @staticmethod
    def _was_closed(connection: socket.socket) -> bool:
        """Whether the server has closed it in order; raises OSError when it was reset."""
        connection.settimeout(0.01)
        try:
            while select.select([connection], [], [], 0)[0]:
                try:
                    if connection.recv(4096) == b"":
                        return True
                    raise ValueError("bytes that nobody has asked for")
                except (TimeoutError, ssl.SSLWantReadError):
                    return False  # a session ticket of TLS 1.3
        finally:
            connection.settimeout(10)
        return False

    def _ask(self, connection: socket.socket) -> bool:
        """One request and its whole answer; returns whether the connection has ended with it."""
        wish = "keep-alive" if self._keepalive else "close"
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: {wish}\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or b"\r\nContent-Length: %d" % SIZE not in head:
            raise ValueError(f"not the answer: {head[:80]!r}")
        while len(body) < SIZE:
            body += self._receive(connection)
        return b"\r\nconnection: close" in head.lower()

    def _receive(self, connection: socket.socket) -> bytes:
        data = connection.recv(65536)
        if not data:
            raise ValueError("the connection ended within an answer")
        self._answered = True
        return data

    def stop(self) -> None:
        self._stopping.set()
        self.join(15)


def switch_back_and_forth(bay: Bay, host: BrokenHost, count: int) -> tuple[Outcome, str]:
    """`count` switches in one session; the outcome, and a line about what the clients saw."""
    name = f"{count} switches of the live instance under clients that repeat nothing"
    status = host.state().status
    baseline = status["confirmed"]
    other = next(each for each in status["staged"] if each != baseline)
    address = bay.address(host)
    clients = [
        Client(address, tls=tls, keepalive=keepalive)
        for tls, keepalive in ((False, True), (True, True), (False, False), (True, False))
    ]
    problems: list[str] = []
    session = Session(["podman", *global_options(), "exec", "-i", host.container, "/usr/local/sbin/ratchet-host",
                       "session", "--lease", "60"])  # fmt: skip
    for client in clients:
        client.start()
    try:
        for number in range(count):
            answer = session.switch(other if number % 2 == 0 else baseline)
            if not answer.get("ok"):
                problems.append(f"switch {number + 1}: {json.dumps(answer)}")
                break
            if number % 20 == 0 and not session.ask("renew")["ok"]:
                problems.append("the lease was not renewed")
    finally:
        session.ask("end")
        session.close()
        for client in clients:
            client.stop()
    problems += [
        f"{client.name}: {len(client.failures)} of {client.answers} failed: {client.failures[:3]}"
        for client in clients
        if client.failures or client.answers < count
    ]
    crossed = sum(client.crossed for client in clients)
    if crossed > count * MOST_CROSSED:
        problems.append(f"{crossed} requests crossed the close of their connection in {count} switches")
    seen = "; ".join(
        f"{client.name}: {client.answers} answers on {client.opened} connections, {client.crossed} crossed their close"
        for client in clients
    )
    return Outcome(name, "switches", problems, None), seen
