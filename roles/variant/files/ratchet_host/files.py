"""Files that are whole after a crash at any instant, their ids, and how two of them differ."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

MAX_COMPARED_LINES = 20_000


def identify(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def remove_tree(folder: Path) -> None:
    """Free a folder's name, and delete it as far as possible (`removal`)."""
    from ratchet_host.removal import remove

    remove(folder)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, mode: int = 0o644, *, like: Path | None = None) -> None:
    """Either the whole new content is there after a crash, or the old one.

    Args:
        like: nobody may read it who may not read that file; `mode` says who, where there is none.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        shown = like.stat() if like is not None and like.exists() else None
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if shown is not None and os.fstat(descriptor).st_gid != shown.st_gid:
                os.fchown(descriptor, -1, shown.st_gid)
            os.fchmod(descriptor, mode if shown is None else 0o600 | stat.S_IMODE(shown.st_mode) & 0o644)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def point(link: Path, target: str, *, last: Callable[[], object] = bool) -> None:
    """Make `link` a symlink to `target`, atomically and durably. `last` is asked just before, and may raise."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target)
        last()
        temporary.replace(link)
        sync_directory(link.parent)
    finally:
        temporary.unlink(missing_ok=True)


def short_diff(before: bytes, after: bytes, names: tuple[str, str], limit: int) -> str:
    """A unified diff of at most `limit` lines; empty when nothing differs."""
    if before == after:
        return ""
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (before, after))
    if len(old) + len(new) > MAX_COMPARED_LINES:
        return f"(differs; {len(old)} and {len(new)} lines are too many to compare)"
    import difflib

    lines = list(difflib.unified_diff(old, new, *names, lineterm="", n=2))
    if len(lines) > limit:
        lines = [*lines[:limit], f"... {len(lines) - limit} more lines"]
    return "\n".join(lines) or "(differs in line ends or undecodable bytes only)"
