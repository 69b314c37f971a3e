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

    Args:
        mode: permission bits; None keeps those of the file that is replaced (a new file gets 0644).

    Raises HostFailed when the disk is full, read-only or not the operator's.
    """
    temporary: Path | None = None
    try:
        if mode is None:
            mode = _mode_of(path)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise HostFailed(
            f"cannot be written: {error.strerror or error}", where=str(path), next_step=_next_step(error, path)
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, mode: int | None = None) -> None:
    """Replace `path` with `content` (text as UTF-8), durable when this returns. Raises HostFailed."""
    with replacing(path, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def append_whole(descriptor: int, line: bytes) -> None:
    """Append to an open file, or leave it as it was. Raises OSError.

    A disk that fills up takes a part of a line; what is appended later would be glued to it.
    """
    size = os.fstat(descriptor).st_size
    if os.write(descriptor, line) != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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


def _next_step(error: OSError, path: Path) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"free space on the disk of {path.parent}, then run the command again"
    if error.errno == errno.ENOENT:
        return f"create the folder {path.parent}, then run the command again"
    return f"make {path.parent} writable for this user, then run the command again"
