"""End ansible-playbook processes that a killed controller left behind, and remove its temporary folders.

After a kill -9 of the controller its ansible-playbook goes on and would overlap what the next one does. Whatever a
playbook starts has two marks in its environment: the fleet, and the call, which names the controller by process and by
when that was started. Only what has no living controller is a leftover: a run that is under way, and a dry run of the
same fleet beside it, are left alone.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FLEET_VARIABLE = "RATCHET_ANSIBLE_TAG"
CALL_VARIABLE = "RATCHET_ANSIBLE_CALL"
# What follows in a folder's name is the call that made it.
FOLDER_PREFIX = "ratchet-ansible-"
GRACE_SECONDS = 3.0

_CALLS = itertools.count(1)
# The process first: that is where a controller of an earlier version looks, before it removes a folder.
_CALL = re.compile(r"(?P<pid>\d+)-(?P<started>\d+)-(?P<namespace>\d+)-\d+")


def new_call() -> str:
    """A name for one playbook run, which no other has: `PID-STARTED-NAMESPACE-NUMBER`."""
    return f"{os.getpid()}-{_started(os.getpid())}-{_namespace()}-{next(_CALLS)}"


def has_controller(call: str) -> bool:
    """Whether the controller of a call still lives; True too where that cannot be told from here (a container)."""
    found = _CALL.match(call)
    if found is None or found["namespace"] != _namespace():
        return True
    return _started(int(found["pid"])) == found["started"]


def _namespace() -> str:
    """Process ids mean something in one namespace only."""
    return re.sub(r"\D", "", Path("/proc/self/ns/pid").readlink().name)


def _started(pid: int) -> str:
    """When the process was started, in ticks since boot; empty when it is gone, or dead and not yet buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def marked(fits: Callable[[dict[str, str]], bool]) -> list[int]:
    """Ids of the processes whose marks fit: variable -> value."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone meanwhile, or another user's
        pairs = (word.decode(errors="replace").partition("=") for word in words if word.startswith(b"RATCHET_ANSIBLE_"))
        marks = {name: value for name, _, value in pairs}
        if CALL_VARIABLE in marks and fits(marks):
            found.append(int(entry.name))
    return found


def end_leftovers(fleet: str, grace: float = GRACE_SECONDS) -> int:
    """End what is marked with the fleet and has no living controller; returns how many processes there were.

    Only for who holds the fleet.
    """
    return _end(
        lambda marks: marks.get(FLEET_VARIABLE) == fleet and not has_controller(marks[CALL_VARIABLE]), grace=grace
    )


def end_call(call: str, grace: float = GRACE_SECONDS) -> int:
    """End what this call has started: its workers have sessions of their own; returns how many processes there were."""
    return _end(lambda marks: marks[CALL_VARIABLE] == call, grace=grace)


def _end(fits: Callable[[dict[str, str]], bool], *, grace: float) -> int:
    """TERM, then KILL after `grace` seconds."""
    found = marked(fits)
    if found:
        _signal(found, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and marked(fits):
            time.sleep(0.05)
        _signal(marked(fits), signal.SIGKILL)
    return len(found)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def remove_left_folders() -> None:
    """Remove our folders for ansible-runner whose controller is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        try:
            if not has_controller(folder.name.removeprefix(FOLDER_PREFIX)) and folder.lstat().st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another controller was quicker
