"""What a block cost the host: counters of the kernel's and of nginx'."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import Any


def host_counters() -> dict[str, int]:
    """Counters of the host that only rise; one that it does not tell is left out."""
    counters = {}
    for resource_name in ("cpu", "memory", "io"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            some = Path(f"/proc/pressure/{resource_name}").read_text().splitlines()[0]
            counters[f"psi_{resource_name}_us"] = int(some.rpartition("total=")[2])
    with contextlib.suppress(OSError, ValueError):
        names, values = [
            line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
        ]
        counters["retransmits"] = int(dict(zip(names, values, strict=True)).get("RetransSegs", ""))
    return counters


def active_connections(port: int) -> int | None:
    """What nginx' stub_status says on this port, within half a second; None when it does not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.sendall(b"GET /stub_status HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b""
            while len(answer) < 4096 and (data := connection.recv(4096)):
                answer += data
    except OSError:
        return None
    found = re.search(rb"Active connections: ([0-9]{1,9})", answer)
    return int(found[1]) if found else None


def _count(figures: dict[str, Any], name: str) -> int | None:
    value = figures.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def side_metrics(before: dict[str, Any], after: dict[str, Any], requests: int) -> dict[str, float | int | None]:
    """nginx' part of a block's `metrics`, from the session's figures before and after its requests."""
    spent = None
    then, now = _count(before, "cpu_us"), _count(after, "cpu_us")
    if then is not None and now is not None and now >= then and requests:
        spent = round((now - then) / requests, 1)
    return {
        "cpu_us_per_request": spent,
        "rss_bytes": _count(after, "rss_bytes"),
        "open_files": _count(after, "open_files"),
        "error_log_lines": _rise(before, after, "error_log_lines"),
        "upstream_errors": _rise(before, after, "upstream_errors"),
    }


def _rise(before: dict[str, Any], after: dict[str, Any], name: str) -> int | None:
    then, now = _count(before, name), _count(after, name)
    return None if then is None or now is None or now < then else now - then
