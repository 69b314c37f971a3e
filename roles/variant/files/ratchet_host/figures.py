"""Figures of an nginx: its processes' CPU time, memory and open files, and the errors it has logged."""

from __future__ import annotations

import contextlib
import os
import re
import stat
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
    """Counts what an nginx has logged as an error since the first look.

    After a rotation nginx goes on writing into the old file until it is told to open the new one, so the old file is
    held open and read too. What copytruncate cuts off between two looks is lost to everybody.
    """

    ERRORS = re.compile(rb"^[0-9/]{10} [0-9:]{8} \[(?:error|crit|alert|emerg)\] (.*)$", re.MULTILINE)
    MOST_BYTES = 4 << 20
    # The file of now, and rotated ones: two rotations within a trial are rare, and a held file keeps its disk space.
    MOST_FILES = 3

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path = path
        self._files: list[FollowedFile] | None = None
        self._lines = self._upstream = 0

    def read(self) -> dict[str, int]:
        """Totals that never fall; empty where the log cannot be read. A line that is not ended yet counts next time."""
        first = self._files is None
        files = self._files = self._files or []
        with contextlib.suppress(OSError):
            status = self._path().stat()
            if all(file.place != (status.st_dev, status.st_ino) for file in files):
                files.append(FollowedFile(self._path(), from_end=first))
        while len(files) > self.MOST_FILES:
            files.pop(0).close()
        if not files:
            return {}
        for file in files:
            told = self.ERRORS.findall(file.read(self.MOST_BYTES))
            self._lines += len(told)
            self._upstream += sum(b"upstream" in line for line in told)
        return {"error_log_lines": self._lines, "upstream_errors": self._upstream}


class FollowedFile:
    """A log that is read on and on, whatever becomes of its name."""

    def __init__(self, path: Path, *, from_end: bool) -> None:
        # A pipe in a log's place would wait for its writer.
        self._file = open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            self._file.close()
            raise OSError(f"{path} is not a file")
        self.place = (status.st_dev, status.st_ino)
        self._offset = status.st_size if from_end else 0

    def close(self) -> None:
        self._file.close()

    def read(self, most: int) -> bytes:
        """The whole lines that were added, the last `most` bytes of them."""
        size = os.fstat(self._file.fileno()).st_size
        if size < self._offset:
            self._offset = 0
        self._file.seek(max(self._offset, size - most))
        content = self._file.read(most) or b""
        whole = content.rfind(b"\n") + 1
        self._offset = self._file.tell() - len(content) + whole
        return content[:whole]
