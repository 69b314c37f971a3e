"""Hash-chained JSON lines in `.ratchet/audit.jsonl`.

Each entry holds the hash of the entry before it, so that an edit, a deletion in the middle or a reordering breaks the
chain. What a chain cannot see, a missing tail, the store's own copy of the head shows: number and hash of the last
entry, under the random name in `.ratchet/audit.id`. The line is written first, then the head: a controller that dies
between leaves a log that goes on after its head, which is no fault. A log that does not hold its head any more has lost
its end; the head then stays as it is, so that no later entry hides the loss.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.adapters.audit.entries import GENESIS, Entry, digest, parse, sealed
from controller.adapters.audit.verifying import Verified, check, holds
from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.private_state import state_folder
from controller.adapters.store import Store
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project

CHUNK = 1 << 16
# Longer than an append waits for a database that is locked (store/database.py).
LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class _End:
    """How the log ends: its last entry, and the line that was broken off after it, if any."""

    number: int = 0
    hash: str = GENESIS
    torn: bytes = b""
    # Whether the last entry only lacks the end of its line.
    open: bool = False


class AuditLog:
    """One project's log. Appending is safe between processes; an entry is on disk when `record` returns."""

    def __init__(self, project: Project, store: Store) -> None:
        self._project = project
        self._path: Path = project.state / "audit.jsonl"
        self._name_path: Path = project.state / "audit.id"
        self._store = store

    def record(
        self,
        *,
        at: str,
        action: str,
        fleet: str,
        hosts: list[str],
        why: str,
        evidence: dict[str, Any] | None = None,
        state: str = "",
        began: int = 0,
    ) -> int:
        """Append one entry; returns its number. Whoever changes something goes through Accounts, which calls this.

        Args:
            at: UTC, ISO 8601.
            action: a verb of ours: `commit`, `rollback`, `provision`, `destroy`, `adopt`, ...
            evidence: small JSON-like facts: run, trial, verdict, effect, configuration ids.
            state: which half of a change it tells of, and `began` its first half (entries.py).

        Raises HostFailed when it cannot be written; the log is as it was then.
        """
        try:
            with self._appending() as descriptor:
                end = _end(descriptor)
                entry: Entry = {
                    "number": end.number + 1,
                    "at": at,
                    "who": f"{getpass.getuser()}@{socket.gethostname()}",
                    "action": action,
                    "fleet": fleet,
                    "hosts": sorted(hosts),
                    "why": why,
                    "evidence": evidence or {},
                    "previous": end.hash,
                }
                more = {"state": state, "began": began, "torn": end.torn.decode("ascii", "backslashreplace")}
                line, its_hash = sealed(entry | {name: value for name, value in more.items() if value})
                # A database that fails costs no entry: the next one brings the head up to date.
                with contextlib.suppress(HostFailed):
                    self._give_name(end)
                _append(descriptor, b"\n" * end.open + line + b"\n", over=end.torn)
                with contextlib.suppress(HostFailed):
                    self._remember(end, its_hash)
                return end.number + 1
        except OSError as error:
            raise HostFailed(
                f"the audit log cannot be written: {error.strerror or error}",
                where=str(self._path),
                next_step="free the disk or mend the folder's permissions, then run the command again",
            ) from None

    def entries(self) -> list[Entry]:
        """The entries in order, without the lines that are none (`verify` tells of them)."""
        lines, _, _ = self._read()
        return [entry for entry in map(parse, lines) if entry is not None]

    def verify(self) -> Verified:
        """Every edit, deletion and reordering that shows; and what is broken off or not ended, which is no fault."""
        return check(*self._read())

    def _read(self) -> tuple[list[bytes], bytes, tuple[int, str] | None]:
        """The lines, what follows the last one's end, and the head, as they are between two entries."""
        try:
            with self._path.open("rb") as file:
                _lock(file.fileno(), fcntl.LOCK_SH)
                *lines, rest = file.read().split(b"\n")
                head = self._head()
        except FileNotFoundError:
            return [], b"", self._head()
        except OSError as error:
            raise BadInput(f"the audit log cannot be read: {error.strerror}", where=str(self._path)) from None
        return ([*lines, rest], b"", head) if _is_whole(rest) else (lines, rest, head)

    def _name(self) -> str | None:
        """The log's name in the database. A project may be moved and its machine renamed; a log of its own it keeps."""
        with contextlib.suppress(OSError):
            name = self._name_path.read_text(errors="replace").strip()
            return name if re.fullmatch("[0-9a-f]{16}", name) else None
        return None

    def _old_name(self) -> str:
        """The name that logs had in earlier versions."""
        where = f"{socket.gethostname()}:{self._path.resolve()}"
        return hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def _head(self) -> tuple[int, str] | None:
        return self._store.audit_head(self._name() or self._old_name())

    def _give_name(self, end: _End) -> None:
        """Before the first entry. What the database knows first is an empty log: a kill after it loses no head."""
        if self._name() is not None:
            return
        name = secrets.token_hex(8)
        head = self._head() or ((0, GENESIS) if end == _End() else None)
        if head is not None:
            self._store.record_audit_head(name, entries=head[0], digest=head[1])
        write_atomically(self._name_path, name + "\n", mode=0o600)

    def _remember(self, before: _End, its_hash: str) -> None:
        """Move the head on to the new entry, unless the log has lost the one that is remembered."""
        name, head = self._name(), self._head()
        if name is None:
            return
        if head in {None, (before.number, before.hash)} or holds(head, self._hashes()):
            self._store.record_audit_head(name, entries=before.number + 1, digest=its_hash)

    def _hashes(self) -> dict[int, str]:
        return {entry["number"]: entry["hash"] for entry in map(parse, self._path.read_bytes().split(b"\n")) if entry}

    @contextmanager
    def _appending(self) -> Iterator[int]:
        """The open file, which no other process appends to meanwhile."""
        state_folder(self._project)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    """Wait for whoever is appending; not for ever, as a process that was stopped would have it. Raises OSError."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise OSError(errno.EAGAIN, f"another process has had it for {LOCK_SECONDS:.0f} s") from None
            time.sleep(0.02)


def _is_whole(rest: bytes) -> bool:
    """Whether what has no line's end is an entry all the same."""
    entry = parse(rest)
    return entry is not None and entry["hash"] == digest(entry)


def _end(descriptor: int) -> _End:
    """Read the log from its end, as far back as its last entry goes."""
    size = os.fstat(descriptor).st_size
    taken = min(CHUNK, size)
    while True:
        *lines, rest = os.pread(descriptor, taken, size - taken).split(b"\n")
        # The first one is a piece of a line, unless the file begins there.
        whole = lines if taken == size else lines[1:]
        last = next((entry for entry in map(parse, reversed(whole)) if entry is not None), None)
        if last is not None or taken == size:
            break
        taken = min(size, 4 * taken)
    if _is_whole(rest) and (entry := parse(rest)) is not None:
        return _End(entry["number"], entry["hash"], open=True)
    return _End(torn=rest) if last is None else _End(last["number"], last["hash"], torn=rest)


def _append(descriptor: int, line: bytes, *, over: bytes) -> None:
    """Put a line at the end, in the place of what was broken off there (`over`), or leave all as it was.

    Raises OSError. One write: the line has what it takes the place of in it, and is longer.
    """
    size = os.fstat(descriptor).st_size
    start = size - len(over)
    try:
        if os.pwrite(descriptor, line, start) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.pwrite(descriptor, over, start)
        os.ftruncate(descriptor, size)
        raise
