"""What a caller leaves to root's program, and what it takes over of that: nothing that could mislead it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles/variant/files"
TELL = """
import json, os, resource, signal, sys
sys.path.insert(0, sys.argv[1])
from ratchet_host import inherited, system
from ratchet_host.errors import Refused
if "unprivileged" in sys.argv:
    os.setgroups([])
    os.setuid(65534)
if "reset" in sys.argv:
    try:
        inherited.reset()
    except Refused as refused:
        sys.exit(str(refused))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "codes": [system.run(name)[0] for name in ("false", "true")],
    "ignored": sorted(number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN),
    "blocked": int(status["SigBlk"], 16),
    "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
    "fsize": resource.getrlimit(resource.RLIMIT_FSIZE)[0], "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0], "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "oom": int(open("/proc/self/oom_score_adj").read()), "nice": os.nice(0), "policy": os.sched_getscheduler(0),
    "processors": len(os.sched_getaffinity(0)) == len(os.sched_getaffinity(1)),
    "slack": int(open("/proc/self/timerslack_ns").read()),
}))
"""


def tell(spoil: Callable[[], object], *words: str) -> subprocess.CompletedProcess[str]:
    """What a Python says of itself that is called by somebody who has done `spoil` before."""
    return subprocess.run(
        [sys.executable, "-BIS", "-c", TELL, str(FILES), *words],
        preexec_fn=spoil, capture_output=True, text=True, timeout=30, check=False,
        restore_signals=False,
    )  # fmt: skip


def spoiled() -> None:
    """All that an unprivileged caller can set, and sudo passes on."""
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    signal.setitimer(signal.ITIMER_REAL, 25)
    for limit, soft in (
        (resource.RLIMIT_FSIZE, 4096),
        (resource.RLIMIT_CPU, 20),
        (resource.RLIMIT_NOFILE, 60),
        (resource.RLIMIT_CORE, 1 << 20),
    ):
        resource.setrlimit(limit, (soft, resource.getrlimit(limit)[1]))
    Path("/proc/self/oom_score_adj").write_text("900")
    Path("/proc/self/timerslack_ns").write_text("4000000000")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(5)


def test_nothing_of_a_caller_s_settings_is_taken_over() -> None:
    done = tell(spoiled, "reset")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told.pop("codes") == [1, 0]
    assert told.pop("nofile") == 4096
    assert told == {
        "ignored": sorted({signal.SIGPIPE, signal.SIGXFSZ}),
        "blocked": 0,
        "alarm": 0.0,
        "fsize": resource.RLIM_INFINITY,
        "cpu": resource.RLIM_INFINITY,
        "core": 0,
        "oom": 0,
        "nice": 0,
        "policy": os.SCHED_OTHER,
        "processors": True,
        "slack": 50_000,
    }


def test_an_exit_code_is_believed_only_where_the_kernel_keeps_it() -> None:
    told = json.loads(tell(lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)).stdout)
    assert told["codes"] == [1, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="lays root's rights down")
@pytest.mark.parametrize(
    ("limit", "value", "named"),
    [(resource.RLIMIT_FSIZE, 1024, "size of files"), (resource.RLIMIT_CPU, 60, "CPU time"),
     (resource.RLIMIT_NOFILE, 64, "open files"), (resource.RLIMIT_AS, 512 << 20, "address space")],
)  # fmt: skip
def test_a_limit_that_cannot_be_lifted_is_refused_by_name_before_anything_is_done(
    limit: int, value: int, named: str
) -> None:
    done = tell(lambda: resource.setrlimit(limit, (value, value)), "unprivileged", "reset")
    assert done.returncode == 1 and named in done.stderr and "without that limit" in done.stderr, done


def test_closed_standard_streams_are_never_taken_by_a_file_of_ours(tmp_path: Path) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from ratchet_host import inherited; inherited.reset();"
        "file = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT); os.write(1, b'answer'); sys.exit(file < 3)"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-BIS", "-c", script, FILES, tmp_path / "file"],
        timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "file").read_bytes() == b""
