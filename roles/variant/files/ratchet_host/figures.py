"""Figures of an nginx: its processes' CPU time, memory and open files, and the errors it has logged."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ratchet_host import paths
from ratchet_host.processes import Process, children, process_fields


def cpu_ns(pid: int) -> int:
    """CPU time of a process: by the scheduler's own count where the kernel keeps one, else in clock ticks."""
    total = 0
    try:
        for task in (paths.PROC / str(pid) / "task").iterdir():
            total += int((task / "schedstat").read_bytes().split()[0])
        return total
    except (OSError, ValueError, IndexError):
        fields = process_fields(pid)
        return (int(fields[11]) + int(fields[12])) * ticks_ns() if fields else 0


def ticks_ns() -> int:
    return 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Figures:
    """CPU time, memory and open files of one nginx, workers that have ended included."""

    def __init__(self) -> None:
        self._totals: dict[Process, int] = {}

    def read(self, parent: Process) -> dict[str, int]:
        """`cpu_us` never falls. A worker's time moves to its master's account of children when it ends."""
        for _ in range(5):
            family = [parent, *children(parent)]
            fields = process_fields(parent.pid)
            spent = sum(cpu_ns(member.pid) for member in family)
            if fields:
                spent += (int(fields[13]) + int(fields[14])) * ticks_ns()
            if set(family[1:]) == children(parent):
                break
        self._totals[parent] = max(spent, self._totals.get(parent, 0))
        rss = files = 0
        for member in family:
            with contextlib.suppress(OSError, ValueError, IndexError):
                rss += int((paths.PROC / str(member.pid) / "statm").read_bytes().split()[1]) * os.sysconf(
                    "SC_PAGE_SIZE"
                )
                files += sum(1 for _ in (paths.PROC / str(member.pid) / "fd").iterdir())
        return {"cpu_us": sum(self._totals.values()) // 1000, "rss_bytes": rss, "open_files": files}


class ErrorLog:
    """Counts what an nginx has logged as an error since the first look."""

    ERRORS = re.compile(rb"^[0-9/]{10} [0-9:]{8} \[(?:error|crit|alert|emerg)\] (.*)$", re.MULTILINE)
    MOST_BYTES = 4 << 20

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path = path
        self._place: tuple[int, int] | None = None
        self._lines = self._upstream = 0

    def read(self) -> dict[str, int]:
        """Totals that never fall; empty where the log cannot be read. A line that is not ended yet counts next time."""
        try:
            with self._path().open("rb") as file:
                inode, size = os.fstat(file.fileno()).st_ino, os.fstat(file.fileno()).st_size
                if self._place is None:
                    self._place = (inode, size)
                elif self._place[0] != inode or self._place[1] > size:
                    self._place = (inode, 0)  # rotated
                file.seek(max(self._place[1], size - self.MOST_BYTES))
                content = file.read(self.MOST_BYTES)
                whole = content.rfind(b"\n") + 1
                self._place = (inode, file.tell() - len(content) + whole)
        except OSError:
            return {}
        told = self.ERRORS.findall(content[:whole])
        self._lines += len(told)
        self._upstream += sum(b"upstream" in line for line in told)
        return {"error_log_lines": self._lines, "upstream_errors": self._upstream}
