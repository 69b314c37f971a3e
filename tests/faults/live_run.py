"""A run of the controller under way: its process, its events as they are written, what it said."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_alive: set[subprocess.Popen[bytes]] = set()


def kill_all() -> None:
    """End every run that was started here: a harness that is stopped leaves no controller behind."""
    for process in list(_alive):
        process.kill()


class LiveRun:
    """One `controller optimize` or `resume` in a process group of its own."""

    def __init__(
        self, command: list[str], *, project: Path, environment: dict[str, str], output: Path, run_id: str | None = None
    ) -> None:
        self._project = project
        self._known = {folder.name for folder in (project / "runs").glob("*")}
        self.run_id = run_id
        self._read = 0
        self._events: list[dict[str, Any]] = []
        if run_id is not None and self.log.exists():
            self._read = self.log.stat().st_size
        self._out, self._err = output.with_suffix(".out"), output.with_suffix(".err")
        self.started = time.monotonic()
        self._began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command, cwd=project, env=environment, stdout=out, stderr=err, start_new_session=True
            )
        _alive.add(self.process)

    @property
    def folder(self) -> Path:
        """Its run directory; `runs/` itself while it has none."""
        if self.run_id is None:
            fresh = sorted({folder.name for folder in (self._project / "runs").glob("*")} - self._known)
            self.run_id = fresh[0] if fresh else None
        return self._project / "runs" / (self.run_id or "")

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def events(self) -> list[dict[str, Any]]:
        """What it has told so far; of a resumption, only what came since."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return self._events
        whole, _, _ = new.rpartition(b"\n")
        if whole:
            self._read += len(whole) + 1
            for line in whole.splitlines():
                try:
                    self._events.append(json.loads(line))
                except ValueError:
                    continue  # cut off by the kill that this run resumes
        return self._events

    def has_begun(self, step: str) -> bool:
        """Whether a step of that name has begun, in this run or in what it resumes."""
        try:
            return step in self.log.read_text(errors="replace")
        except OSError:
            return False

    def commit_state(self) -> str:
        """Of the commit that was begun since this started; empty while there is none."""
        path = self._project / ".ratchet/ratchet.db"
        query = "SELECT state FROM ratchet_commits WHERE started_at >= ? ORDER BY started_at DESC LIMIT 1"
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.05)
            try:
                found = connection.execute(query, (self._began,)).fetchone()
            finally:
                connection.close()
        except sqlite3.Error:
            return ""
        return str(found[0]) if found else ""

    @property
    def said(self) -> str:
        """Both its outputs."""
        return self._err.read_text(errors="replace") + self._out.read_text(errors="replace")

    def result(self) -> dict[str, Any]:
        """verdict.json; empty when it was not sealed."""
        try:
            document: dict[str, Any] = json.loads((self.folder / "verdict.json").read_text())
        except (OSError, ValueError):
            return {}
        return document

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask_to_stop(self, number: signal.Signals) -> None:
        """Ctrl-C reaches every process of a terminal's group, as does nothing else."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None when it has not ended in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
