"""The demo's upstream speaks HTTP/1.1 as a real service does."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port(upstream_program: Path) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(upstream_program), "--port", str(port), "--delay-ms", "0"])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield port
    process.terminate()
    assert process.wait(timeout=10) == 0


@pytest.fixture
def connection(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    yield connection
    connection.close()


def exchange(port: int, request: bytes) -> bytes:
    """Send bytes on a new connection and read until the service closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        peer.sendall(request)
        received = b""
        while data := peer.recv(65536):
            received += data
    return received


def test_one_connection_serves_many_requests_of_the_wanted_size(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    peer = connection.sock
    for size in (2, 3, 100, 4096, 250_000):
        connection.request("GET", f"/api/items?size={size}")
        body = connection.getresponse().read()
        assert len(body) == size
        assert isinstance(json.loads(body), list)
    assert connection.sock is peer


def test_the_same_request_has_the_same_body(port: int) -> None:
    request = b"GET /api/items?size=5000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert exchange(port, request) == exchange(port, request)


def test_the_delay_is_kept(connection: http.client.HTTPConnection) -> None:
    started = time.monotonic()
    connection.request("GET", "/api/items?delay_ms=50")
    assert connection.getresponse().status == 200
    assert time.monotonic() - started >= 0.05


def test_requests_sent_at_once_are_answered_in_order(port: int) -> None:
    received = exchange(
        port,
        b"GET /?size=20&delay_ms=30 HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /?size=10&delay_ms=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    assert received.index(b"Content-Length: 20") < received.index(b"Content-Length: 10")


def test_a_body_that_comes_in_pieces_belongs_to_its_request(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/api/orders?size=30")
    connection.putheader("Content-Length", "6")
    connection.endheaders(b"abc")
    time.sleep(0.05)
    connection.send(b"def")
    assert len(connection.getresponse().read()) == 30
    connection.request("HEAD", "/api/orders?size=30")
    response = connection.getresponse()
    assert response.headers["Content-Length"] == "30"
    assert response.read() == b""


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /?size=99999999999999999999 HTTP/1.1\r\n\r\n", 400),
        (b"GET /?size=-1 HTTP/1.1\r\n\r\n", 400),
        (b"GET /?delay_ms=%D9%A3 HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /" + b"a" * 20000, 431),
    ],
)
def test_what_it_cannot_answer_it_refuses_in_words_and_lives_on(port: int, request_head: bytes, status: int) -> None:
    received = exchange(port, request_head)
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    assert exchange(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_port_that_is_taken_is_named(upstream_program: Path, port: int) -> None:
    done = subprocess.run(
        [sys.executable, str(upstream_program), "--port", str(port)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
