"""How true is the probe? Its latencies against packet timestamps on loopback, with wrk's beside them.

Needs root, nginx and tcpdump; wrk is optional. One nginx on a free port of 127.0.0.1 serves a file of 1 KiB; tcpdump
sees that port only. The agent runs as on a host, but its session switches nothing: one configuration is measured.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.figures import Figure, emit, parse_arguments

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
RATES = (500, 1000, 2000, 3000)
STALL_SECONDS = 0.3


# --- what is measured -----------------------------------------------------------------------------------------------


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
        self.master = subprocess.Popen([_program("nginx"), "-p", str(folder), "-c", str(folder / "conf")])
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
    server: Server, rate: float, seconds: float, *, tls: bool = False, during: Callable[[], None] | None = None
) -> Measurement:
    """Run the agent for two blocks. `during` is called when the second one is under way."""
    root = Path(tempfile.mkdtemp(dir=server.folder))
    (root / "session").write_text(SESSION)
    plan = {
        "format": 1, "run": "b", "trial": 1, "host": "here", "design": "switchback", "seed": 1, "body_sample": 0,
        "workload": {
            "rate": rate, "requests": [{"path": "/file"}], "port": server.tls if tls else server.port,
            "scheme": "https" if tls else "http",
        },
        "arms": {"control": "a", "variant": "a"}, "pairs": [["control", "variant"]],
        "block_seconds": seconds, "burn_in_seconds": 0.3, "lease_seconds": 600,
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


# --- the truth ------------------------------------------------------------------------------------------------------


class Wire:
    """What tcpdump sees of one port: for each request the time of its first and of its response's last segment."""

    def __init__(self, folder: Path, port: int) -> None:
        self._port = port
        self._file = folder / f"wire-{time.monotonic_ns()}.pcap"
        self._tcpdump = subprocess.Popen(
            [_program("tcpdump"), "-i", "lo", "-n", "-s", "96", "-B", "16384", "-Z", "root",
             "--time-stamp-precision=nano", "-w", str(self._file), "tcp", "port", str(port)],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        for line in self._tcpdump.stderr or ():
            if b"listening on" in line:
                return
        raise SystemExit("tcpdump cannot listen on loopback; run the benchmark as root")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        # The kernel hands packets over in batches, up to a second old.
        time.sleep(1.3)
        self._tcpdump.send_signal(signal.SIGINT)
        self._tcpdump.communicate(timeout=20)

    def requests(self) -> list[tuple[int, int]]:
        """(request, response) in nanoseconds since the epoch, in order of the requests."""
        found: list[list[int]] = []
        current: dict[int, list[int]] = {}
        for stamp, source, destination in self._segments():
            if destination == self._port:
                current[source] = [stamp, 0]
                found.append(current[source])
            elif destination in current:
                current[destination][1] = stamp
        return [(request, response) for request, response in found if response]

    def _segments(self) -> Iterator[tuple[int, int, int]]:
        """(nanoseconds, source port, destination port) of each segment that carries data."""
        data = self._file.read_bytes()
        (magic,) = struct.unpack_from("<I", data)
        if magic != 0xA1B23C4D:
            raise SystemExit("tcpdump wrote no file with nanoseconds")
        place = 24
        while place + 16 <= len(data):
            seconds, nanoseconds, captured, _ = struct.unpack_from("<IIII", data, place)
            place += 16
            header = place + 14 + (data[place + 14] & 15) * 4
            (total,) = struct.unpack_from(">H", data, place + 16)
            source, destination = struct.unpack_from(">HH", data, header)
            if total - (header - place - 14) - (data[header + 12] >> 4) * 4 > 0:
                yield seconds * 1_000_000_000 + nanoseconds, source, destination
            place += captured


@dataclass(frozen=True)
class Truth:
    """What the wire says, how far the probe is from it, and how far its own clock would be: microseconds a request."""

    latencies: list[float]
    errors: list[float]
    user_clock_errors: list[float]


def compare(measured: Measurement, wire: Wire) -> Truth:
    """The counted requests against their packets. On loopback the kernel stamps a packet once, for both readers."""
    rows = measured.rows
    start_us = measured.block["started_at"] * 1e6
    # Both blocks are on the wire, each with as many requests; the second is looked at.
    seen = wire.requests()
    if len(seen) != 2 * len(rows):
        raise SystemExit(f"the wire saw {len(seen)} requests, the probe made {2 * len(rows)}: the capture is not whole")
    truth = [
        (response / 1000 - start_us - row.intended_us, row)
        for (_, response), row in zip(seen[len(rows) :], rows, strict=True)
        if row.intended_us >= 0
    ]
    return Truth(
        latencies=[true for true, _ in truth],
        errors=[abs(row.objective_us - true) for true, row in truth],
        user_clock_errors=[abs(row.latency_us - true) for true, row in truth],
    )


# --- the figures ----------------------------------------------------------------------------------------------------


def quantile(values: Sequence[float], percent: int) -> float:
    """Nearest rank."""
    return sorted(values)[(len(values) * percent + 99) // 100 - 1]


def figure(
    name: str, unit: str, values: Sequence[float], *, most: float | None = None, least: float | None = None, **rest: Any
) -> Figure:
    """The median of repetitions with its spread, against a target."""
    value = statistics.median(values)
    target = f"<= {most:g}" if most is not None else f">= {least:g}" if least is not None else ""
    reached = None if not target else (value <= most if most is not None else value >= (least or 0))
    several = len(values) > 1
    return Figure(
        name=name, unit=unit, value=value, low=min(values) if several else None,
        high=max(values) if several else None, target=target, reached=reached, **rest,
    )  # fmt: skip


@dataclass
class Bench:
    """Runs the parts; every part is repeated, and gives its figures."""

    server: Server
    seconds: float
    repetitions: int

    def accuracy(self) -> list[Figure]:
        """Error against the wire at 200/s, quiet and with every core taken."""
        quiet = [self._against_wire() for _ in range(self.repetitions)]
        with contended():
            busy = [self._against_wire() for _ in range(self.repetitions)]
        wrk = self._wrk_against_wire()
        figures = []
        for percent in (50, 90, 99):
            off = [
                abs(
                    quantile([row.objective_us for row in measured.rows if row.intended_us >= 0], percent)
                    - quantile(truth.latencies, percent)
                )
                for measured, truth in quiet
            ]
            figures.append(figure(f"error of p{percent}", "us", off, peers={"wrk": wrk.get(percent)}))
        for name, runs, percent, most in (
            ("error a request, p50", quiet, 50, 20),
            ("error a request, p99", quiet, 99, 50),
            ("error a request, p99, every core taken", busy, 99, 100),
        ):
            each = [quantile(truth.errors, percent) for _, truth in runs]
            own = statistics.median(quantile(truth.user_clock_errors, percent) for _, truth in runs)
            figures.append(figure(name, "us", each, most=most, peers={"by a user-space clock": own}))
        figures.append(figure("bytes a row", "B", [measured.bytes_per_row for measured, _ in quiet], most=50))
        packed = [measured.packed_bytes_per_row for measured, _ in quiet]
        figures.append(figure("bytes a row, compressed", "B", packed, most=15))
        return figures

    def _against_wire(self) -> tuple[Measurement, Truth]:
        with Wire(self.server.folder, self.server.port) as wire:
            measured = probe(self.server, 200, self.seconds)
        return measured, compare(measured, wire)

    def _wrk_against_wire(self) -> dict[int, float | None]:
        """How far wrk's percentiles are from those of its own packets; it has no rate to be set."""
        if shutil.which("wrk") is None:
            return {}
        with Wire(self.server.folder, self.server.port) as wire:
            said = wrk(self.server, 1)
        truth = [(response - request) / 1000 for request, response in wire.requests()]
        return {percent: abs(said[percent] - quantile(truth, percent)) for percent in (50, 90, 99)}

    def rates(self) -> list[Figure]:
        """Schedule kept, lag and cost by rate; up to which rate the probe is to be trusted on this machine."""
        figures = []
        kept: list[bool] = []
        for rate in RATES:
            runs = [probe(self.server, rate, self.seconds) for _ in range(self.repetitions)]
            achieved = [run.block["achieved_rate"] / rate * 100 for run in runs]
            lags = [[row.lag_us for row in run.rows if row.intended_us >= 0] for run in runs]
            middle, tail = ([quantile(lag, percent) for lag in lags] for percent in (50, 99))
            figures.append(figure(f"achieved of {rate}/s", "%", achieved, least=99.5))
            slow = rate <= 1000
            figures.append(figure(f"send lag at {rate}/s, p50", "us", middle, most=150 if slow else None))
            figures.append(figure(f"send lag at {rate}/s, p99", "us", tail, most=1000 if slow else None))
            cost = [run.cpu_us_per_request for run in runs]
            figures.append(figure(f"CPU per 1,000 requests at {rate}/s", "ms", cost, most=130 if rate == 500 else None))
            if rate == 500:
                peak = [run.peak_bytes / 1e6 for run in runs]
                figures.append(figure("peak memory", "MB", peak, most=25))
            kept.append(statistics.median(achieved) >= 99.5 and statistics.median(tail) <= 1000)
        trusted = [rate for number, rate in enumerate(RATES, 1) if all(kept[:number])]
        figures.append(figure("to be trusted here up to", "requests/s", [max(trusted, default=0)]))
        return figures

    def tls(self) -> list[Figure]:
        """Cost and memory with TLS on kept connections."""
        runs = [probe(self.server, 500, self.seconds, tls=True) for _ in range(self.repetitions)]
        return [
            figure("CPU per 1,000 requests at 500/s, TLS", "ms", [run.cpu_us_per_request for run in runs], most=180),
            figure("peak memory, TLS", "MB", [run.peak_bytes / 1e6 for run in runs]),
        ]

    def stall(self) -> list[Figure]:
        """A stall of 300 ms within a block: 1 % of its requests wait longer than the stall less 1 % of the block."""
        seconds = 3.0
        analytic = (STALL_SECONDS - seconds / 100) * 1000

        def interrupt() -> None:
            time.sleep(1.2)
            with self.server.stalled(STALL_SECONDS):
                pass

        told = [
            probe(self.server, 200, seconds, during=interrupt).block["p99_us"] / 1000 for _ in range(self.repetitions)
        ]
        off = [abs(ms / analytic - 1) * 100 for ms in told]
        peers: dict[str, float | None] = {"wrk": None}
        if shutil.which("wrk") is not None:
            peers["wrk"] = wrk(self.server, seconds, during=interrupt)[99] / 1000
        return [
            figure(f"p99 in a stall of 300 ms (truth {analytic:.0f})", "ms", told, peers=peers),
            figure("the same, off by", "%", off, most=10),
        ]


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


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(f"{name} is not installed: apt-get install {name.replace('nginx', 'nginx-light')}")
    return found


def main() -> None:
    options = parse_arguments(__doc__.splitlines()[0])
    if os.geteuid() != 0:
        raise SystemExit("the packets on loopback are seen by root only: run the benchmark as root")
    with tempfile.TemporaryDirectory(prefix="probe-accuracy-") as folder:
        server = Server(Path(folder))
        try:
            bench = Bench(server, seconds=1 if options.quick else 4, repetitions=1 if options.quick else 5)
            figures = [*bench.accuracy(), *bench.rates(), *bench.tls(), *bench.stall()]
        finally:
            server.close()
    emit("probe_accuracy", options.quick, figures, options.output)


if __name__ == "__main__":
    main()
