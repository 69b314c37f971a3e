"""How true is the probe? Its latencies against packet timestamps on loopback, with h2load's and wrk's beside them.

Needs root, nginx and tcpdump; h2load (nghttp2-client) and wrk are optional. One nginx on a free port of 127.0.0.1
serves a file of 1 KiB; tcpdump sees that port only. The agent runs as on a host, but its session switches nothing: one
configuration is measured.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.probe_tools import Measurement, Server, contended, h2load, probe, wrk
from benchmarks.probe_wire import Truth, Wire, compare
from controller.model.blocks import LIMITS

RATES = (500, 1000, 2000, 3000)
STALL_SECONDS = 0.3


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


def percentile_error(percent: int, measured: Measurement, truth: Truth) -> float:
    """How far the probe's percentile is from the wire's, microseconds."""
    told = [row.objective_us for row in measured.rows if row.intended_us >= 0]
    return abs(quantile(told, percent) - quantile(truth.latencies, percent))


def middle_of(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def has(tool: str) -> bool:
    """Whether a peer is installed; without it its figures are left out."""
    return shutil.which(tool) is not None


@dataclass(frozen=True)
class PeerRun:
    """Another tool's run against its own packets; `errors` by percentile, microseconds."""

    errors: dict[int, float]
    achieved: float
    cpu_us_per_request: float


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
            off = [percentile_error(percent, measured, truth) for measured, truth in quiet]
            figures.append(figure(f"error of p{percent} at 200/s", "us", off, peers={"wrk, unpaced": wrk.get(percent)}))
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

    def _against_wire(self, rate: int = 200) -> tuple[Measurement, Truth]:
        with Wire(self.server.folder, self.server.port) as wire:
            measured = probe(self.server, rate, self.seconds)
        return measured, compare(measured, wire)

    def _wrk_against_wire(self) -> dict[int, float | None]:
        """How far wrk's percentiles are from those of its own packets; it has no rate to be set."""
        if not has("wrk"):
            return {}
        with Wire(self.server.folder, self.server.port) as wire:
            said = wrk(self.server, 1)
        truth = [(response - request) / 1000 for request, response in wire.requests()]
        return {percent: abs(said[percent] - quantile(truth, percent)) for percent in (50, 90, 99)}

    def rates(self) -> list[Figure]:
        """By rate, beside h2load at the same one: error of percentiles, schedule kept, lag and cost; and up to which
        rate the probe is to be trusted on this machine."""
        figures = []
        kept: list[bool] = []
        for rate in RATES:
            runs = [self._against_wire(rate) for _ in range(self.repetitions)]
            peers = [self._h2load_against_wire(rate) for _ in range(self.repetitions if has("h2load") else 0)]
            for percent in (50, 90, 99):
                off = [percentile_error(percent, measured, truth) for measured, truth in runs]
                beside = middle_of([peer.errors[percent] for peer in peers])
                figures.append(figure(f"error of p{percent} at {rate}/s", "us", off, peers={"h2load": beside}))
            achieved = [measured.block["achieved_rate"] / rate * 100 for measured, _ in runs]
            beside = middle_of([peer.achieved / rate * 100 for peer in peers])
            figures.append(figure(f"achieved of {rate}/s", "%", achieved, least=99.5, peers={"h2load": beside}))
            lags = [[row.lag_us for row in measured.rows if row.intended_us >= 0] for measured, _ in runs]
            middle, tail = ([quantile(lag, percent) for lag in lags] for percent in (50, 99))
            slow = rate <= 1000
            figures.append(figure(f"send lag at {rate}/s, p50", "us", middle, most=150 if slow else None))
            figures.append(figure(f"send lag at {rate}/s, p99", "us", tail, most=1000 if slow else None))
            cost = [measured.cpu_us_per_request for measured, _ in runs]
            beside = middle_of([peer.cpu_us_per_request for peer in peers])
            figures.append(
                figure(
                    f"CPU per 1,000 requests at {rate}/s",
                    "ms",
                    cost,
                    most=130 if rate == 500 else None,
                    peers={"h2load": beside},
                )
            )
            if rate == 500:
                peak = [measured.peak_bytes / 1e6 for measured, _ in runs]
                figures.append(figure("peak memory", "MB", peak, most=25))
            kept.append(statistics.median(achieved) >= 99.5 and statistics.median(tail) <= 1000)
        trusted = [rate for number, rate in enumerate(RATES, 1) if all(kept[:number])]
        figures.append(figure("to be trusted here up to", "requests/s", [max(trusted, default=0)]))
        return figures

    def _h2load_against_wire(self, rate: int) -> PeerRun:
        with Wire(self.server.folder, self.server.port) as wire:
            run = h2load(self.server, rate, self.seconds)
        truth = [(response - request) / 1000 for request, response in wire.requests()]
        return PeerRun(
            errors={
                percent: abs(quantile(run.latencies, percent) - quantile(truth, percent)) for percent in (50, 90, 99)
            },
            achieved=run.achieved,
            cpu_us_per_request=run.cpu_us_per_request,
        )

    def tls(self) -> list[Figure]:
        """Cost and memory with TLS on kept connections."""
        runs = [probe(self.server, 500, self.seconds, tls=True) for _ in range(self.repetitions)]
        return [
            figure("CPU per 1,000 requests at 500/s, TLS", "ms", [run.cpu_us_per_request for run in runs], most=180),
            figure("peak memory, TLS", "MB", [run.peak_bytes / 1e6 for run in runs], most=25),
        ]

    def saturation(self) -> list[Figure]:
        """How much the probe can ask for in a closed loop, of a file that costs nginx next to nothing."""
        saturated = {"mode": "saturation", "connections_open": 32}
        runs = [probe(self.server, 1, self.seconds, workload=saturated) for _ in range(self.repetitions)]
        rates = [run.block["achieved_rate"] for run in runs]
        shares = [run.block["probe_busy_share"] for run in runs]
        at_limit = [rate * LIMITS.probe_busy_share / share for rate, share in zip(rates, shares, strict=True)]
        return [
            figure("saturated with 1 KiB files", "requests/s", rates),
            figure("the probe was busy for", "%", [share * 100 for share in shares]),
            figure("refused as the bottleneck from about", "requests/s", at_limit),
            figure("CPU per 1,000 requests, saturated", "ms", [run.cpu_us_per_request for run in runs]),
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
        if has("wrk"):
            peers["wrk"] = wrk(self.server, seconds, during=interrupt)[99] / 1000
        return [
            figure(f"p99 in a stall of 300 ms (truth {analytic:.0f})", "ms", told, peers=peers),
            figure("the same, off by", "%", off, most=10),
        ]


def main() -> None:
    options = parse_arguments(__doc__.splitlines()[0])
    if os.geteuid() != 0:
        raise SystemExit("the packets on loopback are seen by root only: run the benchmark as root")
    with tempfile.TemporaryDirectory(prefix="probe-accuracy-") as folder:
        server = Server(Path(folder))
        try:
            bench = Bench(server, seconds=1 if options.quick else 4, repetitions=1 if options.quick else 5)
            figures = [*bench.accuracy(), *bench.rates(), *bench.tls(), *bench.saturation(), *bench.stall()]
        finally:
            server.close()
    emit("probe_accuracy", options.quick, figures, options.output)


if __name__ == "__main__":
    main()
