"""The live nginx: who it is (whoever started it), and what each of its workers runs."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from ratchet_host import paths
from ratchet_host.configurations import baseline_marks, confirmed, live, staged
from ratchet_host.errors import Refused
from ratchet_host.marks import WHY_FORBIDDEN, carried, forbidden, mark_in
from ratchet_host.paths import configuration_file
from ratchet_host.processes import POLL_SECONDS, Process, children, process, process_fields, title
from ratchet_host.system import show

# Of the kernel's flags of a process (PF_FORKNOEXEC): it runs the program of its parent.
FORKED = 0x40
# A title that has no room is cut short.
MASTER, WORKER, RETIRING = "nginx: m", "nginx: w", "shut"


def serves(said: str) -> bool:
    """Whether a process of that title is a worker that is not on its way out."""
    return said.startswith(WORKER) and RETIRING not in said


def roots(pid: int) -> bool:
    """Whether a process is root's: anybody may call himself a master."""
    try:
        return b"\nUid:\t0\t" in (paths.PROC / str(pid) / "status").read_bytes()
    except OSError:
        return False


def workers(parent: Process) -> list[Process]:
    """Children that serve requests and are not on their way out."""
    found = [child for child in children(parent) if serves(title(child.pid))]
    return sorted(found, key=lambda child: child.pid)


def unit_master(unit: str) -> Process | None:
    """The main process of a unit of systemd's; None when it does not run."""
    try:
        pid = int(show(unit, "MainPID").get("MainPID", "0") or 0)
    except ValueError:
        return None
    return process(pid) if pid else None


def reads_our_file(said: str) -> bool:
    """Whether a master of such a title reads /etc/nginx/nginx.conf; a shadow and an instance apart do not."""
    own = re.escape(str(paths.ETC / "nginx.conf"))
    return not re.search(rf" -q?(c(?! ?{own}( |$))|p)", said)


def here(pid: int) -> bool:
    """Whether a process sees our files: an nginx in a container is not ours."""
    try:
        return os.path.samestat((paths.PROC / str(pid) / "root").stat(), Path("/").stat())
    except OSError:
        return True


class Live:
    """The live nginx as it is now: whoever started it, and two of it while its binary is being upgraded."""

    def __init__(self) -> None:
        parents: dict[Process, int] = {}
        serving: dict[Process, int] = {}
        forked: set[Process] = set()
        for name in os.listdir(paths.PROC):  # noqa: PTH208 - of hundreds of them, most are others' processes
            if not name.isdigit() or not (said := title(int(name))).startswith("nginx: "):
                continue
            found, fields = process(int(name)), process_fields(int(name))
            if found is None or fields is None:
                continue
            if serves(said):
                serving[found] = int(fields[1])
            elif said.startswith(MASTER) and reads_our_file(said) and roots(found.pid) and here(found.pid):
                parents[found] = int(fields[1])
                forked |= {found} if int(fields[6]) & FORKED else set()
        # A worker is called a master until it has begun: the new master of an upgraded binary is a program of its own.
        known = {parent.pid for parent in parents}
        parents = {found: of for found, of in parents.items() if not (found in forked and of in known)}
        pids = {parent.pid for parent in parents}
        older = [parent for parent in parents if parent.pid in parents.values()]
        self.masters = sorted(parents, key=lambda parent: (parent not in older, -parent.start))
        """Last is the one that takes a reload: the new one while the binary is upgraded."""
        self.workers = {worker: carried(worker.pid) for worker, parent in serving.items() if parent in pids}
        self.upgraded = [master for master in older if any(serving.get(w) == master.pid for w in self.workers)]
        """Old masters of an upgraded binary whose workers serve."""

    def runs(self, marks: set[int]) -> bool:
        """Whether every worker that serves has one of these marks, and is there to answer."""
        return bool(self.workers) and all(mark in marks and not worker.stopped for worker, mark in self.workers.items())


def master() -> Process | None:
    """The live nginx's master; None when it does not run."""
    masters = Live().masters
    return masters[-1] if masters else None


def running() -> str | None:
    """The staged configuration that every worker of the live nginx shows; None when they do not show one."""
    found = Live()
    if found.runs(baseline_marks()):
        return confirmed()
    marks = set(found.workers.values())
    names = [name for name in staged() if marks == {mark_in(configuration_file(name))}]
    return names[0] if len(names) == 1 and found.runs(marks) else None


def require_marks() -> None:
    """Raises Refused where no worker could show what it runs."""
    if any(forbidden(worker.pid) for worker in Live().workers):
        raise Refused(WHY_FORBIDDEN)


def verified() -> bool:
    """Whether nginx runs what it would start with."""
    identity = live()
    return identity is not None and running() == identity


def wait_verified(seconds: float = 2.0) -> bool:
    """Whether nginx comes to run what it would start with; workers that have just been started need a moment."""
    deadline = time.monotonic() + seconds
    while not verified():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def marks_in_use() -> set[int]:
    """The marks of all files and all workers, and those that the keeper takes for the baseline's."""
    files = [configuration_file(name) for name in staged()] + list(paths.VAR.glob("baseline-*.conf"))
    told = {int(word) for file in paths.VAR.glob("marks-*") for word in read_words(file) if word.isdigit()}
    return {mark_in(file) for file in files} | {*Live().workers.values()} | told


def read_words(path: Path) -> list[str]:
    """The words of a file of ours; none where it cannot be read."""
    try:
        return path.read_text().split()
    except (OSError, ValueError):
        return []
