"""What the lab knows beyond its containers: documents of the API's resources, in SQLite inside a podman volume.

The volume carries the lab's label, so podman alone says which labs exist; deleting it forgets the lab. Every change is
one transaction: a killed API leaves the state before or after it, never between.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller.lab.commands import CommandFailed, podman
from controller.model.errors import HostFailed

LABEL = "ratchet.lab"
Document = dict[str, Any]


def object_name(lab: str) -> str:
    """The name of the lab's volume and network, and the prefix of its containers."""
    return f"ratchet-{lab}"


def volume_folder(lab: str, *, create: bool) -> Path | None:
    """Where the lab's volume is on disk; None when it does not exist and is not to be created."""
    name = object_name(lab)
    if create:
        try:
            podman("volume", "create", "--label", f"{LABEL}={lab}", name)
        except CommandFailed as error:
            if "already exists" not in error.output:
                raise
    try:
        return Path(podman("volume", "inspect", name, "--format", "{{.Mountpoint}}").strip())
    except CommandFailed:
        if create:
            raise
        return None


class State:
    """Documents by kind and id. Ids are unique over all kinds and never reused. Safe for use by several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mutex = threading.RLock()
        self._depth = 0
        self._database = sqlite3.connect(
            folder / "state.db", check_same_thread=False, isolation_level=None, timeout=30.0
        )
        self._database.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
            "CREATE TABLE IF NOT EXISTS document (kind TEXT, id INTEGER, body TEXT NOT NULL, PRIMARY KEY (kind, id));"
            "CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);"
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All reads and writes inside happen at once, or not at all."""
        with self._mutex:
            outermost = self._depth == 0
            self._depth += 1
            try:
                if outermost:
                    self._database.execute("BEGIN IMMEDIATE")
                yield
            except BaseException:
                if outermost:
                    self._database.execute("ROLLBACK")
                raise
            else:
                if outermost:
                    self._database.execute("COMMIT")
            finally:
                self._depth -= 1

    def count(self, name: str, *, start: int = 1) -> int:
        """The next number of a counter."""
        with self.transaction():
            row = self._database.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
            value = start if row is None else int(row[0]) + 1
            self._database.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))
        return value

    def next_id(self) -> int:
        return self.count("id")

    def put(self, kind: str, document: Document) -> None:
        with self.transaction():
            body = json.dumps(document)
            self._database.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (kind, document["id"], body))

    def get(self, kind: str, identity: int) -> Document | None:
        with self._mutex:
            row = self._database.execute(
                "SELECT body FROM document WHERE kind = ? AND id = ?", (kind, identity)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def all(self, kind: str) -> list[Document]:
        """Every document of a kind, by id."""
        with self._mutex:
            rows = self._database.execute("SELECT body FROM document WHERE kind = ? ORDER BY id", (kind,)).fetchall()
        return [json.loads(row[0]) for row in rows]

    def change(self, kind: str, identity: int, **fields: Any) -> Document | None:
        """Replace some fields of a document; None when it is gone."""
        with self.transaction():
            document = self.get(kind, identity)
            if document is not None:
                document.update(fields)
                self.put(kind, document)
        return document

    def delete(self, kind: str, identity: int) -> None:
        with self.transaction():
            self._database.execute("DELETE FROM document WHERE kind = ? AND id = ?", (kind, identity))

    def close(self) -> None:
        with self._mutex:
            self._database.close()


@contextmanager
def sole_server(lab: str, folder: Path) -> Iterator[None]:
    """Held by the one process that serves the lab. Raises HostFailed while another one does."""
    with (folder / "api.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise HostFailed(
                f"the lab `{lab}` is already served by process {lock.read().strip() or 'unknown'}",
                where="lab",
                next_step="controller lab status; or start another one beside it: controller lab up --name OTHER",
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
