"""What the tests of a host's programs share: real nginx masters on loopback, and the real agent as a process."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.judge.schedule import draw_pairs
from controller.model.blocks import LIMITS
from ratchet_host import paths

AGENT = Path(__file__).resolve().parents[2] / "roles/probe/files/ratchet-agent"
SESSION = Path(__file__).resolve().with_name("session_double.py")

ROLE = Path(__file__).resolve().parents[2] / "roles/nginx/templates/nginx.conf.j2"
LIVE_FORMAT = re.search(r"log_format ratchet_live .*;", ROLE.read_text())
assert LIVE_FORMAT

FRAME = """
daemon off; user root; worker_processes 1; worker_shutdown_timeout 2s;
pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  map $request_uri $ratchet_class {{ default other; "~^/api/" api; }}
  {live_format}
  access_log off; keepalive_requests 100000; server_names_hash_bucket_size 128;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  types {{ text/plain txt; application/json json; }}
  ssl_certificate {certificate}; ssl_certificate_key {certificate};
  ssl_session_cache shared:s:1m; ssl_session_tickets off;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl;
    root {site};
    location /posted {{ return 201 "thanks"; }}
    @HTTP@
  }}
  server {{ listen 127.0.0.1:{status}; location / {{ stub_status; }} }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nginx:
    """nginx masters of one test module, and the folder that the session double works in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: (free_port(), free_port(), free_port()) for name in ("live", "a", "b")}
        self.port, self.tls, self.status = self.ports["live"]
        self._masters: dict[str, subprocess.Popen[bytes]] = {}
        self.settings: dict[str, Any] = {
            "confirmed": "base",
            "configurations": {
                "base": "",
                "light": "gzip on; gzip_types application/json; gzip_comp_level 1;",
                "heavy": "gzip on; gzip_types application/json; gzip_comp_level 9;",
                "broken": "location /small.txt { return 503; }",
            },
            "instances": {"switchback": ["live"], "duet": ["a", "b"]},
            "ports": {
                side: {str(live): own for live, own in zip(self.ports["live"], self.ports[side], strict=True)}
                for side in "ab"
            },
        }
        self._site()
        self.write_settings()
        for name in self.ports:
            self._start(name)

    def _site(self) -> None:
        site = self.folder / "site"
        site.mkdir()
        (site / "small.txt").write_text("x" * 1024)
        rows = [{"id": number, "name": f"item {number}", "price": number * 37 % 1000} for number in range(1800)]
        (site / "data.json").write_text(json.dumps(rows))
        self.certificate = self.folder / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-keyout", str(self.folder / "key"), "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        with self.certificate.open("a") as file:
            file.write((self.folder / "key").read_text())

    def write_settings(self, **changed: object) -> None:
        (self.folder / "settings.json").write_text(json.dumps({**self.settings, **changed}))

    def _start(self, name: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        port, tls, status = self.ports[name]
        frame = FRAME.format(
            folder=folder, site=self.folder / "site", certificate=self.certificate, port=port, tls=tls, status=status,
            live_format=LIVE_FORMAT[0],
        )  # fmt: skip
        (folder / "frame.conf").write_text(frame)
        (folder / "nginx.conf").write_text(frame.replace("@HTTP@", ""))
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self._masters[name] = subprocess.Popen(
            [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=(folder / "stderr").open("w")
        )
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        raise AssertionError((folder / "stderr").read_text())

    def workers(self, name: str = "live") -> list[int]:
        master = self._masters[name].pid
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    def reload(self) -> None:
        self._masters["live"].send_signal(signal.SIGHUP)

    def reopen(self) -> None:
        """As logrotate has nginx do it."""
        self._masters["live"].send_signal(signal.SIGUSR1)

    def log(self) -> list[str]:
        path = self.folder / "session.log"
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        for master in self._masters.values():
            master.terminate()
        for master in self._masters.values():
            master.wait(10)


@pytest.fixture(scope="session")
def nginx_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    nginx = Nginx(tmp_path_factory.mktemp("nginx"))
    yield nginx
    nginx.close()


@pytest.fixture
def nginx(nginx_masters: Nginx) -> Nginx:
    """nginx on its baseline, with the session double as it usually behaves."""
    nginx_masters.write_settings()
    (nginx_masters.folder / "session.log").unlink(missing_ok=True)
    return nginx_masters


def make_plan(port: int, *, pairs: int | list[Any] = 1, design: str = "switchback", **changed: Any) -> dict[str, Any]:
    """A plan of short blocks at 200 requests a second; `workload` is laid over the default one."""
    workload = {"rate": 200, "requests": [{"path": "/small.txt"}], "port": port, "timeout_ms": 1000}
    workload |= changed.pop("workload", {})
    plan = {
        "format": 1, "run": "r-1", "trial": 1, "host": "here", "design": design, "workload": workload,
        "arms": {"control": "base", "variant": "light"}, "block_seconds": 0.5, "burn_in_seconds": 0.1,
        "lease_seconds": 60, "seed": 7, "body_sample": 1, "limits": LIMITS.model_dump(),
    }  # fmt: skip
    plan |= changed
    drawn = draw_pairs(plan["seed"], plan["trial"], plan["host"], pairs) if isinstance(pairs, int) else pairs
    plan["pairs"] = [list(pair) for pair in drawn]
    return plan


class Agent:
    """A running `ratchet-agent run`."""

    def __init__(self, root: Path, session_folder: Path) -> None:
        self.root = root
        session = f"{sys.executable} {SESSION} {session_folder} --lease {{lease}} --design {{design}} --bound {{bound}}"
        self.process = subprocess.Popen(
            [sys.executable, str(AGENT), "--root", str(root), "--session", session,
             "--live-log", str(session_folder / "live.log"), "run"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        self.stdin = self.process.stdin
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._unread = b""

    def send(self, document: object) -> None:
        self.stdin.write(json.dumps(document).encode() + b"\n")
        self.stdin.flush()

    def event(self, seconds: float = 30) -> dict[str, Any] | None:
        """The next event; None at the end of the output."""
        assert self.process.stdout
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            assert self._selector.select(deadline - time.monotonic()), f"no event within {seconds} s"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def until(self, kind: str) -> dict[str, Any]:
        while (event := self.event()) is not None:
            if event["event"] == kind:
                return event
        raise AssertionError(f"no {kind} event; {self.process.stderr.read() if self.process.stderr else ''!r}")

    def rest(self) -> list[dict[str, Any]]:
        """Every event up to the end, and the process reaped."""
        events = []
        while (event := self.event()) is not None:
            events.append(event)
        self.process.wait(10)
        return events

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


class Evidence:
    """What an agent left on the disk."""

    def __init__(self, root: Path, run: str = "r-1", trial: int = 1) -> None:
        self.text = gzip.decompress((root / run / f"{trial}.csv.gz").read_bytes()).decode("ascii")
        self.sidecar: dict[str, Any] = json.loads((root / run / f"{trial}.json").read_text())
        header, *lines = self.text.splitlines()
        self.rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]

    def counted(self, arm: str = "") -> list[dict[str, str]]:
        return [row for row in self.rows if int(row["intended_us"]) >= 0 and row["arm"].startswith(arm)]


class Laboratory:
    """Starts agents, and cleans up after them."""

    def __init__(self, root: Path, session_folder: Path) -> None:
        self.root = root
        self.session_folder = session_folder
        self.agents: list[Agent] = []

    def start(self, plan: object | None = None) -> Agent:
        agent = Agent(self.root, self.session_folder)
        self.agents.append(agent)
        if plan is not None:
            agent.send(plan)
        return agent

    def run(self, plan: object) -> list[dict[str, Any]]:
        return self.start(plan).rest()

    def blocks(self, plan: object) -> list[dict[str, Any]]:
        """The blocks of a plan that must succeed."""
        events = self.run(plan)
        assert events[-1]["event"] == "end", events[-1]
        return [event["block"] for event in events if event["event"] == "block"]

    def evidence(self) -> Evidence:
        return Evidence(self.root)


@pytest.fixture
def laboratory(tmp_path: Path, nginx: Nginx) -> Iterator[Laboratory]:
    root = tmp_path / "probe"
    root.mkdir()
    laboratory = Laboratory(root, nginx.folder)
    yield laboratory
    for agent in laboratory.agents:
        agent.close()


@pytest.fixture
def bare_laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    """Agents whose session only answers: for servers that are not nginx."""
    root = tmp_path / "probe"
    root.mkdir()
    folder = tmp_path / "session"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"confirmed": "base", "instances": {}, "configurations": {}}))
    laboratory = Laboratory(root, folder)
    yield laboratory
    for agent in laboratory.agents:
        agent.close()


class RawServer(threading.Thread):
    """A TCP server that hands each connection to `serve` in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__(daemon=True)
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[socket.socket], None]], RawServer]]:
    """Starts servers that answer as a test wishes."""
    servers: list[RawServer] = []

    def start(serve: Callable[[socket.socket], None]) -> RawServer:
        server = RawServer(serve)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def plan_of() -> Callable[..., dict[str, Any]]:
    return make_plan


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of /etc/nginx, for root's program."""
    (tmp_path / "ratchet").mkdir()
    monkeypatch.setattr(paths, "ETC", tmp_path)
    yield tmp_path
