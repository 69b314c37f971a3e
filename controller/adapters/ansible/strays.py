"""End ansible-playbook processes that a killed controller left behind, and remove its temporary folders.

After a kill -9 of the controller its ansible-playbook goes on and would overlap the repeated push. Each run is tagged
through its environment, and a repeated run first ends the strays of its own tag.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

TAG_VARIABLE = "RATCHET_ANSIBLE_TAG"
# What follows in a folder's name is the process that made it.
FOLDER_PREFIX = "ratchet-ansible-"


def tagged(tag: str) -> list[int]:
    """Process ids of everything that was started with this tag."""
    wanted = f"{TAG_VARIABLE}={tag}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone meanwhile, or another user's
        if wanted in environment:
            found.append(int(entry.name))
    return found


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end_strays(tag: str, grace: float = 3.0) -> int:
    """End every process tagged `tag`: TERM, then KILL after `grace` seconds. Returns how many there were."""
    strays = tagged(tag)
    if not strays:
        return 0
    _signal(strays, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and tagged(tag):
        time.sleep(0.05)
    _signal(tagged(tag), signal.SIGKILL)
    return len(strays)


def remove_left_folders() -> None:
    """Remove our folders for ansible-runner whose controller is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*-*"):
        maker = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        try:
            if maker.isdigit() and not Path("/proc", maker).exists() and folder.lstat().st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another controller was quicker
