"""The project's `.ratchet/`: the operator's alone, and never git's.

The project's .gitignore is the operator's to edit and may come later than a key, so the folder carries one of its own:
git heeds the .gitignore nearest to a file, whatever those above it let in again.
"""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

from controller.adapters.files.atomic import write_atomically
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project

FOLDER_MODE = 0o700
IGNORE_ALL = "# Keys and state of one operator: none of it belongs into git, and this file is not to be edited.\n*\n"


def state_folder(project: Project, *below: str) -> Path:
    """`.ratchet/`, or the folder `below` it; made where it is missing (0700).

    Raises BadInput when a file is in its place, HostFailed when it cannot be made.
    """
    folder = _made(project, *below)
    # A full disk or another's folder hides no secret that is not there yet, and must not keep a host from its way back.
    with contextlib.suppress(HostFailed):
        _keep_from_git(project)
    return folder


def secrets_folder(project: Project, *below: str) -> Path:
    """The same for private keys: 0700 whatever it was, and kept from git. Raises HostFailed also when that fails."""
    folder = _made(project, *below)
    try:
        if stat.S_IMODE(folder.stat().st_mode) != FOLDER_MODE:
            folder.chmod(FOLDER_MODE)
    except OSError as error:
        raise _failed(folder, error) from None
    _keep_from_git(project)
    return folder


def _made(project: Project, *below: str) -> Path:
    folder = project.state
    try:
        # One by one: mkdir gives its mode to the last folder only.
        for name in ("", *below):
            folder = folder / name
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except FileExistsError:
        raise BadInput("is no folder", where=str(folder), next_step="move it away, and run the command again") from None
    except OSError as error:
        raise _failed(folder, error) from None
    return folder


def _keep_from_git(project: Project) -> None:
    """An operator's own rules there, if any, stay: whoever wrote them has decided. Git follows no link there."""
    path = project.state / ".gitignore"
    try:
        if path.is_symlink():
            path.unlink()
    except OSError as error:
        raise _failed(path, error) from None
    if not path.is_file():
        write_atomically(path, IGNORE_ALL)


def _failed(folder: Path, error: OSError) -> HostFailed:
    return HostFailed(
        f"cannot be made: {error.strerror or error}",
        where=str(folder),
        next_step=f"make {folder.parent} writable for this user, or free its disk, then run the command again",
    )
