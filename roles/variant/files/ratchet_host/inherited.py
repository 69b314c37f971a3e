"""What a process inherits from its caller, through sudo too, and would be misled by.

sudo passes on ignored signals and the signal mask, resource limits, niceness and scheduling, processors, the OOM score,
timers; they are an unprivileged account's to set. With SIGCHLD ignored every command seems to end with 0, with a limit
of file sizes a file is written in half. What stays is the caller's cgroup and its class of disk requests: both make a
call slow at worst, which is what leases are there for.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from ratchet_host import paths
from ratchet_host.errors import Refused

# Python ignores these itself, and gives them back to what it starts.
OF_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
UNLIMITED = resource.RLIM_INFINITY
# limit, what it is set to, the least that a call needs where that is not allowed, its name
LIMITS = (
    (resource.RLIMIT_FSIZE, UNLIMITED, 256 << 20, "the size of files (ulimit -f)"),
    (resource.RLIMIT_NOFILE, 4096, 256, "the number of open files (ulimit -n)"),
    (resource.RLIMIT_CPU, UNLIMITED, 24 * 3600, "CPU time (ulimit -t)"),
    (resource.RLIMIT_AS, UNLIMITED, 1 << 30, "address space (ulimit -v)"),
    (resource.RLIMIT_DATA, UNLIMITED, 512 << 20, "memory (ulimit -d)"),
    (resource.RLIMIT_STACK, 8 << 20, 1 << 20, "the stack (ulimit -s)"),
    # What we start may hold root's secrets in memory: none of it is left in a core file.
    (resource.RLIMIT_CORE, 0, 0, "core files"),
)


def reset() -> None:
    """Take over nothing that could mislead us. Raises Refused when a limit that would break us cannot be lifted."""
    _fill_standard_streams()
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    for number in signal.valid_signals() - OF_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for limit, wanted, least, what in LIMITS:
        left = _limit(limit, wanted)
        if left != UNLIMITED and left < least:
            raise Refused(
                f"the caller limits {what} to {left}, which this program is not allowed to lift; nothing was done: "
                "call it without that limit"
            )
    _schedule_as_others()


def _limit(limit: int, wanted: int) -> int:
    """Set a soft limit, and the hard one where it is in the way and that is allowed; returns what holds then."""
    soft, hard = resource.getrlimit(limit)
    if soft == wanted:
        return soft
    reached = hard == UNLIMITED or (wanted != UNLIMITED and hard >= wanted)
    try:
        resource.setrlimit(limit, (wanted, hard if reached else wanted))
    except (ValueError, OSError):
        resource.setrlimit(limit, (hard, hard))
    return resource.getrlimit(limit)[0]


def _fill_standard_streams() -> None:
    """A caller may have closed them: the first file that we open would take their place, and be answered into."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _schedule_as_others() -> None:
    """No worse than an ordinary process: what a caller made worse is taken back as far as that is allowed.

    Priorities and processors that the host's own systemd has given stay.
    """
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) in {os.SCHED_IDLE, os.SCHED_BATCH}:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) > 0:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, os.sched_getaffinity(1))
    for name, ordinary in (("oom_score_adj", 0), ("timerslack_ns", 50_000)):
        with contextlib.suppress(OSError, ValueError):
            place = paths.PROC / "self" / name
            if int(place.read_bytes()) > ordinary:
                place.write_bytes(b"%d" % ordinary)
