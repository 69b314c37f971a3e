"""The truth: packet timestamps of one port on loopback, and how far the probe's latencies are from them."""

from __future__ import annotations

import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.probe_tools import Measurement, program


class Wire:
    """What tcpdump sees of one port: for each request the time of its first and of its response's last segment."""

    def __init__(self, folder: Path, port: int) -> None:
        self._port = port
        self._file = folder / f"wire-{time.monotonic_ns()}.pcap"
        self._tcpdump = subprocess.Popen(
            [program("tcpdump"), "-i", "lo", "-n", "-s", "96", "-B", "16384", "-Z", "root",
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
