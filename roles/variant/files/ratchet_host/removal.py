"""Removal of folders, those too in which others write: bounded in time, at any depth, and never fatal.

A name is free at once, by a rename within its root-only folder. Root itself empties only what nobody but root can write
in, level by level without recursion; a folder of another account is emptied by a process of that account, which can do
no more than its owner could. What does not go in time (files that keep coming, an immutable one, a mount) stays aside
under its new name, is logged, and is tried again by `sweep`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import syslog
import time
from pathlib import Path

from ratchet_host import system
from ratchet_host.errors import Refused, explain

# A session's last answer waits for it, and whoever waits for that has patience for 4 s.
SECONDS = 1.5
ASIDE = ".gone-"
# `find` of an account that may do nothing by its group: it deletes as the owner of what it deletes.
NO_GROUP = 65534
DELETE = ("find", ".", "-xdev", "-mindepth", "1", "-delete")
OPEN_UP = ("find", ".", "-xdev", "-type", "d", "!", "-perm", "-u=rwx", "-execdir", "chmod", "u+rwx", "{}", ";")


def remove(path: Path, seconds: float = SECONDS) -> bool:
    """Take a folder, a file or a link away; True when nothing of it is left."""
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return True
    aside = set_aside(path)
    return aside is None or _delete(aside, time.monotonic() + seconds)


def sweep(folder: Path, seconds: float = SECONDS) -> None:
    """Try again what an earlier removal has left in `folder`."""
    deadline = time.monotonic() + seconds
    left = []
    with contextlib.suppress(OSError):
        left = sorted(folder.glob(f"{ASIDE}*"))
    for number, aside in enumerate(left):
        # None takes the time of all others.
        now = time.monotonic()
        _delete(aside, now + (deadline - now) / (len(left) - number))


def set_aside(path: Path) -> Path | None:
    """Free a name; returns where what had it is now, None when there is nothing (or it could not be moved)."""
    for _ in range(8):
        if not os.path.ismount(path) or path.is_symlink():
            break
        # Whoever still has a file open there keeps it for himself.
        with contextlib.suppress(Refused):
            system.run("umount", "--lazy", str(path), timeout=5)
    aside = path.with_name(f"{ASIDE}{path.name}-{os.urandom(4).hex()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    except OSError as error:
        system.log(f"{path} cannot be moved aside and stays: {explain(error)}", syslog.LOG_WARNING)
        return None
    return aside


def _delete(aside: Path, deadline: float) -> bool:
    """Delete what was set aside, as far as that goes until `deadline` (monotonic)."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(aside.lstat().st_mode):
            _empty(str(aside), deadline)
        else:
            aside.unlink()
    if os.path.lexists(aside):
        system.log(f"not all of {aside} could be deleted; delete it by hand when it is in the way", syslog.LOG_WARNING)
        return False
    return True


def _empty(top: str, deadline: float) -> None:
    """Delete a folder whose own name only root can change.

    Folders in it are moved up beside each other before they are looked into: nobody can exchange one for a link, and no
    path and no recursion grows with the depth.
    """
    waiting = [top]
    names = (f"{top}/{os.urandom(4).hex()}-{number}" for number in range(1 << 62))
    while waiting and time.monotonic() < deadline:
        folder = waiting.pop()
        if not _is_emptied(folder, deadline):
            with contextlib.suppress(OSError):
                for entry in list(os.scandir(folder)):
                    with contextlib.suppress(OSError):
                        if not entry.is_dir(follow_symlinks=False):
                            os.unlink(entry.path)  # noqa: PTH108 - strings are all that is needed, for many files
                            continue
                        moved = next(names)
                        os.rename(entry.path, moved)  # noqa: PTH104
                        waiting.append(moved)
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106
    # From the top down only the top itself may be left, now that what was in it has gone.
    with contextlib.suppress(OSError):
        os.rmdir(top)  # noqa: PTH106


def _is_emptied(folder: str, deadline: float) -> bool:
    """Whether its owner's own process was to do it; what is root's is closed to all others first."""
    try:
        status = os.lstat(folder)
        if status.st_uid == 0:
            os.chmod(folder, 0o700)  # noqa: PTH101
            return False
    except OSError:
        return True
    group = NO_GROUP
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        group = pwd.getpwuid(status.st_uid).pw_gid
    for command in (DELETE, OPEN_UP, DELETE):
        left = deadline - time.monotonic()
        with contextlib.suppress(Refused):
            code, _ = system.run(*command, timeout=max(left, 0.1), account=(status.st_uid, group), folder=folder)
            if code == 0 and command is DELETE:
                break
    return True
