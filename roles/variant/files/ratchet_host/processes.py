"""Processes as /proc tells of them."""

from __future__ import annotations

import time

from ratchet_host import paths

POLL_SECONDS = 0.01


class Process:
    """A process that cannot be mistaken for a later one of the same number: its start is part of its name."""

    __slots__ = ("pid", "start")

    def __init__(self, pid: int, start: int) -> None:
        self.pid = pid
        self.start = start

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and (self.pid, self.start) == (other.pid, other.start)

    def __hash__(self) -> int:
        return hash((self.pid, self.start))

    @property
    def alive(self) -> bool:
        return process(self.pid) == self

    @property
    def stopped(self) -> bool:
        """Alive, but somebody has stopped it: by SIGSTOP, or in a debugger."""
        fields = process_fields(self.pid)
        return fields is not None and fields[0] in {b"T", b"t"} and int(fields[19]) == self.start

    def wait_until_gone(self, seconds: float) -> None:
        """Return when it has ended, or after so long."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def process_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state on; None when there is no such process."""
    try:
        return (paths.PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None


def process(pid: int) -> Process | None:
    """The running process of that number; a zombie does not count."""
    fields = process_fields(pid)
    if not fields or fields[0] in {b"Z", b"X"}:
        return None
    return Process(pid, int(fields[19]))


def title(pid: int) -> str:
    try:
        # Anybody's may be as long as he likes.
        with (paths.PROC / str(pid) / "cmdline").open("rb", buffering=0) as file:
            return (file.read(4096) or b"").rstrip(b"\0").decode("utf-8", "replace")
    except OSError:
        return ""


def children(parent: Process) -> set[Process]:
    """Running children of a process."""
    return {child for pid in child_pids(parent) if (child := process(pid)) is not None}


def child_pids(parent: Process) -> list[int]:
    """Their numbers, those that have ended and wait for the parent included."""
    listing = paths.PROC / str(parent.pid) / "task" / str(parent.pid) / "children"
    try:
        told = listing.read_bytes()
        # One that ends while the kernel writes the list makes it skip another, living one (get_children_pid in
        # fs/proc/array.c promises no more): only what is read twice alike is believed.
        while (again := listing.read_bytes()) != told:
            told = again
    except OSError:
        return [
            int(entry)
            for entry in (path.name for path in paths.PROC.iterdir())
            if entry.isdigit() and (fields := process_fields(int(entry))) and int(fields[1]) == parent.pid
        ]
    return [int(pid) for pid in told.split()]


def boot_clock() -> float:
    """Seconds since boot, the clock that /proc counts a process's start in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
