"""Real hosts for root's program: systemd, nginx, and `ratchet-host` as role variant installs it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from controller.lab.commands import podman
from controller.lab.images import ensure_image
from controller.lab.machine import global_options, require_parts, run_options

FILES = Path(__file__).resolve().parents[3] / "roles/variant/files"
PROGRAM = "/usr/local/sbin/ratchet-host"
LEASE = 5
# What root's program and the keeper have said last.
JOURNAL = "journalctl SYSLOG_IDENTIFIER=ratchet-host + _SYSTEMD_UNIT=ratchet-keeper.service --no-pager -n 30"

CONFIGURATION = """\
user www-data;
pid /run/nginx.pid;
worker_processes 2;
worker_shutdown_timeout 3s;
error_log /var/log/nginx/error.log;
include modules-enabled/*.conf;
events { worker_connections 512; }
http {
    include mime.types;
    gzip on; gzip_types application/json; gzip_comp_level @LEVEL@;
    access_log /var/log/nginx/access.log;
    server { listen 127.0.0.1:8089; access_log off; location / { stub_status; } }
    server { listen 8090; listen [::]:8090; location / { return 200 "level @LEVEL@\\n"; } }
    @MORE@
    include sites-enabled/*;
}
"""


def configuration(level: int, more: str = "") -> str:
    """A complete nginx.conf that says its compression level on port 8090."""
    return CONFIGURATION.replace("@LEVEL@", str(level)).replace("@MORE@", more)


def identity(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_mark(content: str) -> str:
    """The text of a file whose first line begins with the mark of the host."""
    return re.sub(r"\Aworker_rlimit_core [0-9]+; ", "", content)


BASELINE = configuration(9)
VARIANT = configuration(4)
BASELINE_ID = identity(BASELINE)
VARIANT_ID = identity(VARIANT)


class Session:
    """A running `ratchet-host session`, spoken to line by line."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._unread = b""
        self.ready = self.read()

    def read(self, seconds: float = 30) -> dict[str, Any]:
        assert self.process.stdout
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no answer within {seconds} s"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return {}
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def write(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line)

    def ask(self, command: str, **fields: str) -> dict[str, Any]:
        self.write(json.dumps({"command": command, **fields}).encode() + b"\n")
        return self.read()

    def switch(self, configuration: str) -> dict[str, Any]:
        return self.ask("switch", configuration=configuration)

    def hang_up(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.hang_up()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


class Host:
    """One host: commands as root, files, power."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._sessions: list[Session] = []

    @property
    def address(self) -> str:
        """Where it is now: another after each start."""
        inspected = json.loads(podman("inspect", self.name))[0]
        return str(inspected["NetworkSettings"]["Networks"]["podman"]["IPAddress"])

    def exec(self, *command: str) -> list[str]:
        return ["podman", *global_options(), "exec", "-i", self.name, *command]

    def run(self, script: str, *, stdin: str = "", check: bool = True) -> str:
        done = subprocess.run(
            self.exec("bash", "-c", script), input=stdin, capture_output=True, text=True, timeout=90, check=False
        )
        assert not check or done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def put(self, path: str, content: str) -> None:
        self.run(f"cat >{path}", stdin=content)

    def ratchet(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        """The document of one command; its exit code agrees with `ok`."""
        done = subprocess.run(
            self.exec(PROGRAM, *arguments), input=stdin, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if document["ok"] else 1), done
        return document

    def stage(self, *options: str, **texts: str) -> dict[str, Any]:
        return self.ratchet("stage", *options, stdin=json.dumps({"configurations": texts, "keep": 5}))

    def status(self) -> dict[str, Any]:
        return self.ratchet("status")

    def session(self, *, lease: int = 60, design: str = "switchback", bound: int = 3600) -> Session:
        options = ["--lease", str(lease), "--design", design, "--bound", str(bound)]
        session = Session(self.exec(PROGRAM, "session", *options))
        self._sessions.append(session)
        return session

    def close_sessions(self) -> None:
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    def get(self, port: int = 8090, path: str = "/") -> tuple[int, str]:
        """Asked on the host itself."""
        out = self.run(f"curl -s -m 5 -w '\\n%{{http_code}}' http://127.0.0.1:{port}{path} || true")
        body, _, status = out.rpartition("\n")
        return int(status), body

    def level(self) -> str:
        """What the live nginx says it runs."""
        return self.get()[1]

    def workers(self) -> set[int]:
        return {int(pid) for pid in self.run("pgrep -P $(cat /run/nginx.pid)").split()}

    def until(self, what: Callable[[], bool], seconds: float) -> float:
        """Seconds until it holds; fails when it does not within `seconds`."""
        started = time.monotonic()
        while not what():
            assert time.monotonic() - started < seconds, self.run(JOURNAL)
            time.sleep(0.1)
        return time.monotonic() - started

    def boot(self) -> None:
        podman(*global_options(), "start", self.name)
        self.until(lambda: self.run("systemctl is-active nginx", check=False).strip() == "active", 60)

    def cut_power(self) -> None:
        podman(*global_options(), "kill", "--signal=KILL", self.name)


def boot(image: str, name: str) -> Iterator[Host]:
    require_parts()
    podman("rm", "--force", "--ignore", "--time=0", "--volumes", name)
    podman(
        *global_options(), "create", f"--name={name}", "--systemd=always", "--cap-add=NET_ADMIN",
        "--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined",
        "--memory=768m", "--cpus=1", *run_options(), ensure_image(image), "/sbin/init",
    )  # fmt: skip
    try:
        for source, target in {
            "ratchet-host": PROGRAM,
            "ratchet-keeper": "/usr/local/sbin/ratchet-keeper",
            "keeper.service": "/etc/systemd/system/ratchet-keeper.service",
        }.items():
            podman("cp", str(FILES / source), f"{name}:{target}")
        podman("cp", os.devnull, f"{name}:/etc/cloud/cloud-init.disabled")
        host = Host(name)
        host.boot()
        host.run("mkdir /usr/local/lib/ratchet /var/lib/ratchet")
        podman("cp", str(FILES / "ratchet_host"), f"{name}:/usr/local/lib/ratchet/ratchet_host")
        host.run("systemctl enable --quiet --now ratchet-keeper.service")
        yield host
        host.close_sessions()
    finally:
        podman("rm", "--force", "--ignore", "--time=0", "--volumes", name)


@pytest.fixture(scope="session")
def fresh_host() -> Iterator[Host]:
    """A host as the distribution left it; the first test that confirms something ends that."""
    # Each checkout has its own, so that two may run their tests side by side.
    name = f"ratchet-test-host-{hashlib.sha256(str(FILES).encode()).hexdigest()[:8]}"
    yield from boot(os.environ.get("RATCHET_TEST_IMAGE", "debian-12"), name)


@pytest.fixture
def host(fresh_host: Host) -> Iterator[Host]:
    """A host on its baseline, the variant staged, nothing edited, no session."""
    both = json.dumps({"configurations": {"baseline": BASELINE, "variant": VARIANT}, "keep": 5})
    # The first one fails on a host that has no baseline yet.
    script = f"{PROGRAM} rollback >/dev/null; {PROGRAM} stage >/dev/null && {PROGRAM} confirm {BASELINE_ID}"
    assert json.loads(fresh_host.run(script, stdin=both))["confirmed"] == BASELINE_ID
    yield fresh_host
    fresh_host.close_sessions()


class held_port:  # noqa: N801 - reads as a statement
    """Another process of the host listens on the port."""

    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._code = f"import socket,time;s=socket.create_server(('', {port}));print('held',flush=True);time.sleep(60)"

    def __enter__(self) -> None:
        self._host.run(f'systemd-run --quiet --unit=held-port python3 -c "{self._code}"')
        self._host.until(lambda: "held" in self._host.run("journalctl -u held-port --no-pager -n 3"), 5)

    def __exit__(self, *_: Any) -> None:
        self._host.run("systemctl stop held-port; journalctl --rotate --vacuum-time=1s >/dev/null 2>&1 || true")


class Client(threading.Thread):
    """A browser that keeps its connection: asks without pause, and like every browser repeats a request once when the
    server has closed the idle connection under it."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._stopping = threading.Event()
        self.answers = 0
        self.failures: list[str] = []

    def run(self) -> None:
        connection = HTTPConnection(self._address, 8090, timeout=5)
        while not self._stopping.is_set():
            for attempt in (1, 2):
                reused = connection.sock is not None
                try:
                    connection.request("GET", "/")
                    response = connection.getresponse()
                    response.read()
                    if response.status != 200:
                        self.failures.append(f"status {response.status}")
                    self.answers += 1
                    break
                except (OSError, HTTPException) as error:
                    connection.close()
                    if attempt == 2 or not reused:
                        self.failures.append(repr(error))
                        break
            time.sleep(0.002)

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
