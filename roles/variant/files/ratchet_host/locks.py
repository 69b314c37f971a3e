"""Locks that their holder's death frees: one for every change, one for the session."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import syslog
import time
from collections.abc import Iterator

from ratchet_host import paths
from ratchet_host.errors import Refused
from ratchet_host.lease import Lease
from ratchet_host.processes import Process, process
from ratchet_host.system import log


class Lock:
    """An exclusive lock that its holder's death frees; it tells who holds it."""

    def __init__(self, name: str) -> None:
        self._path = paths.RUN / name
        self._descriptor: int | None = None

    def take(self, timeout: float = 0) -> bool:
        """True when it is ours, within `timeout` seconds."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.02)
        own = process(os.getpid())
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {own.start if own else 0}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def free(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> Process | None:
        """Who holds it; None when nobody does. Who asks takes it from nobody: others may ask at the same time."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
        try:
            pid, start = (int(word) for word in self._path.read_bytes().split())
        except (OSError, ValueError):
            return None
        holder = Process(pid, start)
        return holder if holder.alive else None

    def wrest(self, grace: float) -> None:
        """Take it from its holder: ask it to end, and kill it when it has not after `grace` seconds. Raises Refused."""
        holder = self.holder()
        if holder is not None and holder.pid != os.getpid():
            log(f"ending process {holder.pid}, which holds {self._path.name}", syslog.LOG_WARNING)
            for number in (signal.SIGTERM, signal.SIGCONT) if grace else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder.pid, number)
            if grace and self.take(grace):
                return
            if holder.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder.pid, signal.SIGKILL)
        if not self.take(10):
            raise Refused(f"{self._path} is held by a process that does not end")


@contextlib.contextmanager
def changing(timeout: float = 30) -> Iterator[None]:
    """Hold the lock that every change of the host's state takes."""
    lock = Lock("lock")
    if not lock.take(timeout):
        raise Refused("another ratchet-host is at work on this host; try again in a moment")
    try:
        yield
    finally:
        lock.free()


def refuse_during_session() -> None:
    """Raises Refused while a session lives. One whose lease is over hangs, and has lost the host: it is ended."""
    lock = Lock("session.lock")
    holder = lock.holder()
    if holder is None:
        return
    if not Lease.over(holder):
        raise Refused("a trial is running on this host; wait for it to end, or end it with: ratchet-host rollback")
    lock.wrest(grace=0)
    lock.free()
