"""Hash-chained JSON lines in `.ratchet/audit.jsonl`.

Each entry holds the hash of the entry before it, so that an edit, a deletion in the middle or a reordering breaks the
chain. What a chain cannot see, a missing tail, the store's own copy of the head shows: the number of entries and the
hash of the last one.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.adapters.files.atomic import append_whole
from controller.adapters.files.private_state import state_folder
from controller.adapters.store import Store
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project

GENESIS = "0" * 64
FIELDS = ("number", "at", "who", "action", "fleet", "hosts", "why", "evidence", "previous")


@dataclass(frozen=True)
class Finding:
    """Something that `verify` noticed. `line` counts from 1; 0 when it is about the whole file."""

    line: int
    what: str


def _digest(entry: dict[str, Any]) -> str:
    body = json.dumps({name: entry[name] for name in FIELDS}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()


class AuditLog:
    """One project's log. Appending is safe between processes; an entry is on disk when `record` returns."""

    def __init__(self, project: Project, store: Store) -> None:
        self._project = project
        self._path: Path = project.state / "audit.jsonl"
        self._store = store
        # Each project has a log of its own, also where several share a database.
        where = f"{socket.gethostname()}:{self._path.resolve()}"
        self._name = hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def record(
        self, *, at: str, action: str, fleet: str, hosts: list[str], why: str, evidence: dict[str, Any] | None = None
    ) -> None:
        """Append one entry.

        Args:
            at: UTC, ISO 8601.
            action: a verb of ours: `commit`, `rollback`, `provision`, `destroy`, `adopt`, ...
            evidence: small JSON-like facts: run, trial, verdict, effect, configuration ids.

        Raises HostFailed when it cannot be written: what cannot be accounted for is not done.
        """
        try:
            with self._locked() as descriptor:
                number, previous = self._tail(descriptor)
                entry: dict[str, Any] = {
                    "number": number + 1,
                    "at": at,
                    "who": f"{getpass.getuser()}@{socket.gethostname()}",
                    "action": action,
                    "fleet": fleet,
                    "hosts": sorted(hosts),
                    "why": why,
                    "evidence": evidence or {},
                    "previous": previous,
                }
                entry["hash"] = _digest(entry)
                line = json.dumps(entry, separators=(",", ":")) + "\n"
                append_whole(descriptor, line.encode())
                os.fsync(descriptor)
                self._store.record_audit_head(self._name, entries=number + 1, digest=entry["hash"])
        except OSError as error:
            raise HostFailed(
                f"the audit log cannot be written: {error.strerror or error}",
                where=str(self._path),
                next_step="free the disk or mend the folder's permissions, then run the command again",
            ) from None

    def entries(self) -> Iterator[dict[str, Any]]:
        """The entries in order; lines that are not JSON objects are skipped (`verify` tells of them)."""
        for _, entry in self._lines():
            if entry is not None:
                yield entry

    def verify(self) -> list[Finding]:
        """Every edit, deletion and reordering that shows; an empty list when the log is whole."""
        found: list[Finding] = []
        number, previous = 0, GENESIS
        for line, entry in self._lines():
            if entry is None or set(entry) != {*FIELDS, "hash"}:
                found.append(Finding(line, "is not an entry"))
                continue
            if entry["hash"] != _digest(entry):
                found.append(Finding(line, "was edited: its content does not give its hash"))
            if entry["previous"] != previous or entry["number"] != number + 1:
                found.append(
                    Finding(line, f"does not follow entry {number}: something was deleted, inserted or moved before it")
                )
            number, previous = entry["number"], entry["hash"]
        head = self._store.audit_head(self._name)
        if head is not None and head != (number, previous):
            found.append(
                Finding(
                    0, f"the last entry is number {number}, the database remembers number {head[0]}: the end differs"
                )
            )
        return found

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadInput(f"the audit log cannot be read: {error.strerror}", where=str(self._path)) from None
        for line, raw in enumerate(text.splitlines(), 1):
            try:
                entry = json.loads(raw)
            except ValueError:
                entry = None
            yield line, entry if isinstance(entry, dict) else None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        state_folder(self._project)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    @staticmethod
    def _tail(descriptor: int) -> tuple[int, str]:
        """Number and hash of the last entry; a torn line (a crash in mid-write) is ended, and shows in `verify`."""
        size = os.fstat(descriptor).st_size
        if size == 0:
            return 0, GENESIS
        end = os.pread(descriptor, 1 << 16, max(0, size - (1 << 16)))
        if not end.endswith(b"\n"):
            os.write(descriptor, b"\n")
        for raw in reversed(end.splitlines()):
            try:
                entry = json.loads(raw)
                return int(entry["number"]), str(entry["hash"])
            except (ValueError, KeyError, TypeError):
                continue
        return 0, GENESIS
