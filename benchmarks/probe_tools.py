"""What is held against the truth: one nginx on loopback, the probe itself, and the load tools it is compared with."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from controller.model.blocks import LIMITS

AGENT = Path(__file__).resolve().parents[1] / "roles/probe/files/ratchet-agent"
# The distribution's own, as on a host.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
SESSION = (
    "import json,sys\n"
    "print(json.dumps({'ok':True,'command':'ready'}),flush=True)\n"
    "for line in sys.stdin:\n"
    " print(json.dumps({'ok':True,'command':json.loads(line)['command'],'verified':True}),flush=True)\n"
)
NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  ssl_certificate {folder}/pem; ssl_certificate_key {folder}/pem;
  server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl; root {folder}; }}
}}
"""


class Server:
    """nginx with one worker on two free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.tls = _free_port(), _free_port()
        (folder / "file").write_bytes(b"x" * 1024)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-keyout", str(folder / "key"), "-out", str(folder / "pem")],
            check=True, capture_output=True,
        )  # fmt: skip
        with (folder / "pem").open("a") as pem:
            pem.write((folder / "key").read_text())
        (folder / "conf").write_text(NGINX.format(folder=folder, port=self.port, tls=self.tls))
        self.master = subprocess.Popen([program("nginx"), "-p", str(folder), "-c", str(folder / "conf")])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.tls), 1):
                return
            time.sleep(0.02)
        raise SystemExit(f"nginx did not start: {(folder / 'error.log').read_text()[-500:]}")

    @contextlib.contextmanager
    def stalled(self, seconds: float) -> Iterator[None]:
        """Its worker stands still for so long."""
        worker = int(Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text().split()[0])
        os.kill(worker, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(worker, signal.SIGCONT)
        yield

    def close(self) -> None:
        self.master.terminate()
        self.master.wait(10)


@dataclass(frozen=True)
class Row:
    """One request as the probe tells it; microseconds. `latency_us` is by the probe's own clock."""

    intended_us: int
    lag_us: int
    latency_us: int
    objective_us: int


@dataclass(frozen=True)
class Measurement:
    """The second block of one run of the agent."""

    block: dict[str, Any]
    rows: list[Row]
    cpu_us_per_request: float
    peak_bytes: int
    bytes_per_row: float
    packed_bytes_per_row: float


def probe(
    server: Server,
    rate: float,
    seconds: float,
    *,
    tls: bool = False,
    during: Callable[[], None] | None = None,
    workload: dict[str, Any] | None = None,
) -> Measurement:
    """Run the agent for two blocks, by default of a steady `rate`; `workload` is laid over that.

    `during` is called when the second block is under way.
    """
    root = Path(tempfile.mkdtemp(dir=server.folder))
    (root / "session").write_text(SESSION)
    plan = {
        "format": 1, "run": "b", "trial": 1, "host": "here", "design": "switchback", "seed": 1, "body_sample": 0,
        "workload": {
            "rate": rate, "requests": [{"path": "/file"}], "port": server.tls if tls else server.port,
            "scheme": "https" if tls else "http", **(workload or {}),
        },
        "arms": {"control": "a", "variant": "a"}, "pairs": [["control", "variant"]],
        "block_seconds": seconds, "burn_in_seconds": 0.3, "lease_seconds": 600,
        "limits": LIMITS.model_dump(),
    }  # fmt: skip
    command = [PYTHON, str(AGENT), "--root", str(root), "--session", f"{PYTHON} {root / 'session'}", "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        if agent.stdin is None or agent.stdout is None:
            raise SystemExit("the agent has no pipes")
        agent.stdin.write(json.dumps(plan).encode() + b"\n")
        agent.stdin.flush()
        block, spent, peak = _follow(agent, agent.stdout, during)
    evidence = gzip.decompress((root / "b/1.csv.gz").read_bytes()).decode().splitlines(keepends=True)[1:]
    packed = (root / "b/1.csv.gz").stat().st_size
    requests = sum(line.split(",")[1] == "2" for line in evidence)
    rows = [
        Row(int(fields[4]), int(fields[5]), int(fields[6]), int(fields[7] or fields[6]))
        for fields in (line.split(",") for line in evidence)
        if fields[1] == "2"
    ]
    return Measurement(
        block=block,
        rows=rows,
        cpu_us_per_request=spent / requests,
        peak_bytes=peak,
        bytes_per_row=sum(map(len, evidence)) / len(evidence),
        packed_bytes_per_row=packed / len(evidence),
    )


def _follow(
    agent: subprocess.Popen[bytes], events: IO[bytes], during: Callable[[], None] | None
) -> tuple[dict[str, Any], float, int]:
    """(second block, CPU microseconds from the first block's event to the second's, peak bytes)."""
    block: dict[str, Any] = {}
    before = after = peak = 0
    for line in events:
        event = json.loads(line)
        if event["event"] == "error":
            raise SystemExit(f"the agent failed: {event['message']}")
        if event["event"] != "block":
            continue
        before, after = after, int(Path(f"/proc/{agent.pid}/schedstat").read_text().split()[0])
        status = Path(f"/proc/{agent.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
        block = event["block"]
        if block["block"] == 1 and during is not None:
            during()
    return block, (after - before) / 1000, peak


def wrk(server: Server, seconds: float, during: Callable[[], None] | None = None) -> dict[int, float]:
    """wrk's percentiles in microseconds, on one connection."""
    command = ["wrk", "-t1", "-c1", f"-d{seconds:.0f}s", "--latency", f"http://127.0.0.1:{server.port}/file"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if during is not None:
            during()
        said, _ = process.communicate(timeout=seconds + 30)
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6}
    found = re.findall(r"^\s+(\d+)%\s+([0-9.]+)(us|ms|s)\s*$", said, re.MULTILINE)
    return {int(percent): float(value) * scale[unit] for percent, value, unit in found}


@dataclass(frozen=True)
class LoadRun:
    """What h2load says of its own run: microseconds a request, requests a second, CPU microseconds a request."""

    latencies: list[float]
    achieved: float
    cpu_us_per_request: float


def h2load(server: Server, rate: int, seconds: float) -> LoadRun:
    """h2load at a constant rate over HTTP/1.1, on one connection."""
    log = Path(tempfile.mkdtemp(dir=server.folder)) / "log"
    count = round(rate * seconds)
    command = ["h2load", "--h1", "-c1", "-t1", f"--rps={rate}", f"-n{count}", f"--log-file={log}",
               f"http://127.0.0.1:{server.port}/file"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"h2load ended with {process.returncode}")
    rows = [line.split() for line in log.read_text().splitlines()]
    starts = sorted(int(row[0]) for row in rows)
    return LoadRun(
        latencies=[float(row[2]) for row in rows],
        achieved=(len(starts) - 1) / (starts[-1] - starts[0]) * 1e6,
        cpu_us_per_request=(used.ru_utime + used.ru_stime) * 1e6 / len(rows),
    )


@contextlib.contextmanager
def contended() -> Iterator[None]:
    """A busy process for each core, for as long as the block lasts."""
    busy = [subprocess.Popen([PYTHON, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(f"{name} is not installed: apt-get install {name.replace('nginx', 'nginx-light')}")
    return found
