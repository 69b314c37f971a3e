"""The mark: a number at the head of every staged file, which the kernel shows of each worker that runs it.

`worker_rlimit_core N` bounds the size of core files, and is one thing of a worker's configuration that /proc/PID/limits
tells, to anybody. So it tells what a worker runs, whatever was asked for, by whomever, and whatever became of it.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from ratchet_host import paths

LIVE = range(2, 2048)
SHADOW = range(2048, 4096)
DIRECTIVE = "worker_rlimit_core"
_HEAD = re.compile(rb"worker_rlimit_core ([0-9]{1,4}); ")
_LIMIT = re.compile(rb"^Max core file size +([0-9]+) ", re.MULTILINE)
_FORBIDDEN = re.compile(rb"^Max core file size +0 +0 ", re.MULTILINE)
WHY_FORBIDDEN = (
    "nginx's service forbids core limits, by which Ratchet sees what a worker runs: give it LimitCORE=infinity, or "
    "leave it CAP_SYS_RESOURCE"
)


def with_mark(text: bytes, mark: int) -> bytes:
    """The file of a staged text. The mark is on its first line, so that nginx's errors name the text's own lines."""
    return f"{DIRECTIVE} {mark}; ".encode() + text


def split_mark(content: bytes) -> tuple[int, bytes]:
    """Mark (0 without one) and text of a file."""
    found = _HEAD.match(content)
    return (int(found[1]), content[found.end() :]) if found else (0, content)


def mark_in(path: Path) -> int:
    """The mark of a file; 0 where it has none, or cannot be read."""
    try:
        with path.open("rb") as file:
            return split_mark(file.read(99))[0]
    except OSError:
        return 0


def carried(pid: int) -> int:
    """The mark that a worker runs with; 0 when it runs nothing of ours."""
    try:
        found = _LIMIT.search((paths.PROC / str(pid) / "limits").read_bytes())
    except OSError:
        return 0
    mark = int(found[1]) if found else 0
    return mark if mark in LIVE or mark in SHADOW else 0


def forbidden(pid: int) -> bool:
    """Whether a worker could not take its mark: no limit but 0 is allowed to it."""
    try:
        return bool(_FORBIDDEN.search((paths.PROC / str(pid) / "limits").read_bytes()))
    except OSError:
        return False


def new_mark(taken: set[int], marks: range = LIVE) -> int:
    """One that nothing has yet."""
    return random.choice([mark for mark in marks if mark not in taken])  # noqa: S311 - a name, no secret
