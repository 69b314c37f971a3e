"""Write files so that nobody ever sees half of it: a file's old content or its new one, a whole line or none."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from controller.model.errors import HostFailed

DEFAULT_MODE = 0o644


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file to write into; it takes the place of `path` when the block ends well, and vanishes when it does not.

    Where `path` is a link, what it leads to is replaced.

    Args:
        mode: permission bits; None keeps those of the file that is replaced (a new file gets 0644).

    Raises HostFailed when the disk is full, read-only or not the operator's.
    """
    temporary: Path | None = None
    target = _target(path)
    try:
        if mode is None:
            mode = _mode_of(path)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        raise _failed(path, error, target.parent) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, mode: int | None = None) -> None:
    """Replace `path` with `content` (text as UTF-8), durable when this returns. Raises HostFailed."""
    with replacing(path, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def make_folder(folder: Path) -> None:
    """Make it and those above it, where they are missing. Raises HostFailed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failed(folder, error, folder.parent) from None


def check_writable(path: Path) -> None:
    """That `path`, and the folders above it that are missing, could be written now. Raises HostFailed."""
    target = _target(path)
    folder = target.parent
    try:
        folder = next(above for above in target.parents if above.exists())
        with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", suffix=".new", dir=folder) as file:
            file.write(bytes(folder.stat().st_blksize))
    except OSError as error:
        raise _failed(path, error, folder) from None


def append_whole(descriptor: int, line: bytes) -> None:
    """Append to an open file, or leave it as it was. Raises OSError.

    A disk that fills up takes a part of a line; what is appended later would be glued to it.
    """
    size = os.fstat(descriptor).st_size
    if os.write(descriptor, line) != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _target(path: Path) -> Path:
    """The file that `path` leads to. A loop leads to itself, which cannot be written."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _mode_of(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return DEFAULT_MODE


def _sync_folder(folder: Path) -> None:
    """Without this a power cut may forget the rename itself."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError, folder: Path) -> HostFailed:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        step = f"free space on the disk of {folder}"
    elif error.errno == errno.ENOENT:
        step = f"create the folder {folder}"
    else:
        step = f"make {folder} writable for this user"
    return HostFailed(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        next_step=f"{step}, then run the command again",
    )
