"""Between which configurations a reload leaves all sockets alone: told from the text, and true of a real nginx."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_host.language import parse
from ratchet_host.sockets import fingerprint, listening
from tests.agent.conftest import free_port


def told(text: str) -> list[str]:
    return listening(parse(text, "test"))


@pytest.mark.parametrize(
    ("text", "sockets"),
    [
        ("http { server { } }", ["tcp *:80"]),
        ("http { server { listen 80; } server { listen *:80 default_server; listen 0.0.0.0:80; } }", ["tcp *:80"]),
        ("http { server { listen 80 ssl http2 proxy_protocol; } }", ["tcp *:80"]),
        ("http { server { listen [::]:80; listen [::1]; } }", ["tcp [::1]:80", "tcp [::]:80"]),
        ("http { server { listen [::]:80 ipv6only=on; } }", ["tcp [::]:80"]),
        ("http { server { listen [::]:80 ipv6only=off; } }", ["tcp [::]:80 ipv6only=off"]),
        ("http { server { listen 80 backlog=9; } server { listen 80; } }", ["tcp *:80 backlog=9"]),
        ("http { server { listen 80; } server { listen 80 fastopen=3 deferred; } }", ["tcp *:80 deferred fastopen=3"]),
        ("http { server { listen 80 so_keepalive=30m::10; } }", ["tcp *:80 so_keepalive=30m::10"]),
        ("http { server { listen 80 reuseport; } }", ["tcp *:80 reuseport", "workers 1"]),
        ("worker_processes auto; http { server { listen 80 reuseport; } }", ["tcp *:80 reuseport", "workers auto"]),
        ("worker_processes 4; http { server { listen 80; } }", ["tcp *:80"]),
        ("http { server { listen unix:/run/a.sock; } }", ["tcp unix:/run/a.sock"]),
        ("http { server { listen 443 quic reuseport; listen 443 ssl; } }",
         ["tcp *:443", "udp *:443 reuseport", "workers 1"]),
        ("stream { server { listen 53 udp; } server { listen 5000-5001; } }",
         ["tcp *:5000", "tcp *:5001", "udp *:53"]),
        ("mail { server { listen 127.0.0.1:25; } }", ["tcp 127.0.0.1:25"]),
        ("http { server { listen what@ever; } }", ["tcp what@ever"]),
    ],
)  # fmt: skip
def test_the_sockets_of_a_configuration(text: str, sockets: list[str]) -> None:
    assert told(text) == sockets


def test_all_ports_of_a_range_count() -> None:
    one, other = (f"stream {{ server {{ listen 2000-{end}; }} }}" for end in (2500, 2600))
    assert fingerprint(parse(one, "test")) != fingerprint(parse(other, "test"))


class Reloaded:
    """A real nginx, and the sockets that it holds: their inodes, each once."""

    def __init__(self, folder: Path, text: str) -> None:
        self._folder = folder
        self._write(text)
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self._process = subprocess.Popen([nginx, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")])
        self._wait(set())

    def _write(self, text: str) -> None:
        user = "user root;" if os.geteuid() == 0 else ""
        (self._folder / "nginx.conf").write_text(
            f"{user} daemon off; pid {self._folder}/pid; error_log {self._folder}/error.log; events {{}} {text}"
        )

    def _workers(self) -> set[str]:
        pid = self._process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def _wait(self, old: set[str]) -> None:
        deadline = time.monotonic() + 10
        while not self._workers() or self._workers() & old:
            assert time.monotonic() < deadline, (self._folder / "error.log").read_text()
            time.sleep(0.02)
        time.sleep(0.1)

    def sockets(self) -> set[str]:
        inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line}
        held = {str(link.readlink()) for link in Path(f"/proc/{self._process.pid}/fd").iterdir()}
        return {name for name in held if name[8:-1] in inodes}

    def reload(self, text: str) -> None:
        old = self._workers()
        self._write(text)
        self._process.send_signal(signal.SIGHUP)
        self._wait(old)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    yield free_port(), free_port()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("server { listen ONE; }", "server { listen ONE default_server; server_name x; }"),
        ("server { listen ONE; } server { listen TWO; }", "server { listen TWO; listen ONE; }"),
        ("server { listen ONE; }", "server { listen 0.0.0.0:ONE; } server { listen *:ONE; }"),
        ("server { listen ONE reuseport; }", "server { listen ONE; }"),
        ("server { listen ONE; }", "server { listen TWO; }"),
        ("server { listen 127.0.0.1:ONE; }", "server { listen 127.0.0.1:ONE; listen 127.0.0.1:TWO; }"),
        ("server { listen ONE; } server { listen TWO; }", "server { listen ONE; }"),
    ],
)
def test_a_real_nginx_keeps_all_its_sockets_when_and_only_when_they_are_told_to_be_the_same(
    one: str, other: str, ports: tuple[int, int], tmp_path: Path
) -> None:
    texts = [
        f"worker_processes 2; http {{ access_log off; {each} }}".replace("ONE", str(ports[0])).replace(
            "TWO", str(ports[1])
        )
        for each in (one, other)
    ]
    nginx = Reloaded(tmp_path, texts[0])
    try:
        before = nginx.sockets()
        assert before
        nginx.reload(texts[1])
        kept = nginx.sockets() == before
    finally:
        nginx.close()
    assert kept == (fingerprint(parse(texts[0], "one")) == fingerprint(parse(texts[1], "other")))


def test_a_real_nginx_of_more_workers_has_more_sockets_only_where_each_has_its_own(
    ports: tuple[int, int], tmp_path: Path
) -> None:
    for flag, same in (("", True), ("reuseport", False)):
        texts = [
            f"worker_processes {n}; http {{ access_log off; server {{ listen {ports[0]} {flag}; }} }}" for n in (2, 3)
        ]
        nginx = Reloaded(tmp_path, texts[0])
        try:
            before = nginx.sockets()
            nginx.reload(texts[1])
            assert (nginx.sockets() == before) is same
        finally:
            nginx.close()
        assert (fingerprint(parse(texts[0], "one")) == fingerprint(parse(texts[1], "other"))) is same
