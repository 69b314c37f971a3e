"""One reload, watched until the workers show the new file and the old ones have left."""

from __future__ import annotations

import contextlib
import os
import signal
import syslog
import time
from pathlib import Path

from ratchet_host import paths
from ratchet_host.errors import Refused
from ratchet_host.instance import workers
from ratchet_host.marks import WHY_FORBIDDEN, carried, forbidden
from ratchet_host.nginx import emergency
from ratchet_host.processes import POLL_SECONDS, Process, children
from ratchet_host.system import log

# nginx itself gives up on a port in use after 2.5 s.
GENERATION_SECONDS = 6.0
# A debugger may stop it for a moment.
STOPPED_SECONDS = 1.0


class Reload:
    """One reload of a running nginx: it has happened when every worker that serves shows the mark of the new file."""

    def __init__(self, parent: Process, mark: int, error_log: Path | None = None, *, name: str = "nginx") -> None:
        self._parent = parent
        self._mark = mark
        self._log = error_log or paths.ERROR_LOG
        self._name = name
        with contextlib.suppress(OSError):
            self._offset = self._log.stat().st_size
        self._before = children(parent)
        try:
            os.kill(parent.pid, signal.SIGHUP)
        except ProcessLookupError:
            raise Refused(f"{name}'s master process has ended") from None

    _offset = 0

    def _reason(self) -> tuple[str, bool]:
        """The last reason that nginx has logged since (empty when it gave none), and whether it has given up."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                lines = file.read(1 << 16).decode("utf-8", "replace").splitlines()
        except OSError:
            return "", False
        told = [emergency(line) for line in lines if "[emerg]" in line]
        reasons = [line for line in told if "still could not bind" not in line]
        return (reasons[-1][-500:] if reasons else ""), len(reasons) < len(told)

    def _taken(self) -> bool:
        """Whether a generation with the mark is there; a worker that was stopped does not hold it up."""
        serving = [worker for worker in workers(self._parent) if not worker.stopped]
        # A file without a mark shows by workers that were not there before, and carry none.
        fresh = bool(self._mark) or bool(set(serving) - self._before)
        return bool(serving) and fresh and all(carried(worker.pid) == self._mark for worker in serving)

    def wait(self, *, patience: float, strict: bool) -> None:
        """Wait for the new generation, and up to `patience` seconds until the old one has left.

        Raises Refused when nginx did not take it, or (strict) when old workers stay: at once those that somebody has
        stopped (SIGSTOP, a debugger). Where that is no reason to refuse, stopped ones are killed at the end.
        """
        started = time.monotonic()
        while not self._taken():
            if not self._parent.alive:
                raise Refused(f"{self._name}'s master process ended during the reload")
            waited = time.monotonic() - started
            if waited > STOPPED_SECONDS and self._parent.stopped:
                raise Refused(f"{self._name}'s master process is stopped (SIGSTOP, a debugger) and takes no reload")
            reason, given_up = self._reason() if waited > 1 else ("", False)
            if waited > GENERATION_SECONDS or given_up:
                unmarked = any(forbidden(worker.pid) for worker in workers(self._parent))
                seen = reason or (WHY_FORBIDDEN if unmarked else "it kept its old workers")
                raise Refused(f"{self._name} did not take the reload: {seen}")
            time.sleep(POLL_SECONDS)
        began = time.monotonic()
        while left := [child for child in self._before if child.alive]:
            waited = time.monotonic() - began
            if strict and waited > STOPPED_SECONDS and any(child.stopped for child in left):
                raise Refused(f"a worker of {self._name} is stopped (SIGSTOP, a debugger) and does not leave")
            if waited > patience:
                if strict:
                    raise Refused(f"old workers still serve after {patience:.0f} s; set worker_shutdown_timeout")
                for child in left:
                    kill_if_stopped(child)
                return
            time.sleep(POLL_SECONDS)


def kill_if_stopped(worker: Process) -> None:
    """Kill a worker that hears no other signal: it would keep its clients waiting for ever."""
    if worker.stopped:
        log(f"nginx's worker {worker.pid} is stopped and does not leave; killing it", syslog.LOG_WARNING)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        # Whoever looks next must not take it for a new worker that has crashed.
        worker.wait_until_gone(GENERATION_SECONDS)
