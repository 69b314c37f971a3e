"""What stays on disk of a trial, and for how long."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratchet_agent.errors import AgentError
from ratchet_agent.lane import Lane
from ratchet_agent.plan import Plan
from ratchet_agent.rows import COLUMNS, FORMAT, LIVE_COLUMNS
from ratchet_agent.schedule import Mix

# What stays on the host beside the run under way, and what must stay free on its disk.
KEEP_RUNS = 50
KEEP_BYTES = 256 << 20
DISK_RESERVE_BYTES = 16 << 20
BYTES_PER_ROW = 50
# Rows of one trial, uncompressed: forty million requests.
MOST_BYTES = 2 << 30


class Record:
    """The trial's rows and sidecar under `<root>/<run>/`. Raises AgentError("disk")."""

    def __init__(self, root: Path, plan: Plan, mix: Mix, software: dict[str, str]) -> None:
        self._plan = plan
        self._folder = root / plan.run
        self._rows_path = self._folder / f"{plan.trial}.csv"
        self.path = self._folder / f"{plan.trial}.csv.gz"
        self.sidecar = self._folder / f"{plan.trial}.json"
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._rows = 0
        self.blocks: list[dict[str, Any]] = []
        self.connections = {arm: dict.fromkeys(("opened", "stale", "tls_full", "tls_resumed"), 0) for arm in plan.arms}
        self._constant = {
            "run": plan.run,
            "host": plan.host,
            "trial": plan.trial,
            "design": plan.design,
            "source": plan.source,
            "arms": plan.arms,
            "workload": plan.document["workload"],
            "schedule": {
                "seed": plan.seed,
                "pairs": plan.pairs,
                "block_seconds": plan.block_seconds,
                "burn_in_seconds": plan.burn_in_seconds,
                **(
                    {"minimum_requests": plan.minimum_requests}
                    if plan.live
                    else {
                        "interval_ns": plan.interval_ns,
                        "lag_limit_us": plan.lag_limit_us,
                        "mix": {"cycle": mix.cycle, "offsets": mix.offsets},
                    }
                ),
            },
            "limits": plan.document["limits"],
            "software": software,
        }
        with self._writing(self._folder):
            prune(root, keep=plan.run)
            self._folder.mkdir(mode=0o750, exist_ok=True)
            self._check_space()
            for left_behind in (self.path, self.sidecar):
                left_behind.unlink(missing_ok=True)
            self._file = self._rows_path.open("wb", buffering=0)
            self._write(",".join(LIVE_COLUMNS if plan.live else COLUMNS) + "\n")

    def _check_space(self) -> None:
        plan = self._plan
        # Nobody knows how many requests live traffic will bring: the reserve must do.
        rows = 0 if plan.live else len(plan.pairs) * plan.most_rows
        # The rows and, for a moment at the end, their compressed copy.
        needed = rows * BYTES_PER_ROW * 4 // 3 + DISK_RESERVE_BYTES
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise AgentError(
                "disk",
                f"{self._folder}: {free >> 20} MiB are free, this trial may need {(needed >> 20) + 1}; "
                "free some space on the host, or plan fewer or shorter pairs",
            )

    def _check_growth(self) -> None:
        """Of a saturation and of live traffic nobody knows the rows beforehand."""
        if self._bytes > MOST_BYTES:
            raise AgentError(
                "disk",
                f"{self._rows_path}: over {MOST_BYTES >> 20} MiB of rows in one trial; plan fewer or shorter pairs",
            )
        if shutil.disk_usage(self._folder).free < DISK_RESERVE_BYTES + self._bytes // 3:
            raise AgentError(
                "disk",
                f"{self._folder}: No space left on device beside {DISK_RESERVE_BYTES >> 20} MiB for the host's own and "
                f"the {self._bytes >> 20} MiB of rows, compressed; free some space, or plan fewer or shorter pairs",
            )

    def append(self, lines: Iterator[str], blocks: list[dict[str, Any]], lanes: list[Lane]) -> None:
        """Add the rows of a pair's block or blocks, in the order in which they were due, and their summaries."""
        self._check_growth()
        with self._writing(self._rows_path):
            while chunk := list(itertools.islice(lines, 1000)):
                self._write("".join(chunk))
                self._rows += len(chunk)
        self.blocks += blocks
        for lane in lanes:
            if lane.client is not None:
                for name, number in lane.client.counts.items():
                    self.connections[lane.rows.arm][name] += number
        self._write_sidecar(complete=False)

    def seal(self) -> dict[str, Any]:
        """Compress and hash the rows, close the sidecar; everything is on the disk when this returns its `csv`."""
        with self._writing(self.path):
            os.fsync(self._file.fileno())
            self._file.close()
            packed = self.path.with_suffix(".tmp")
            try:
                with self._rows_path.open("rb") as rows, packed.open("wb") as target:
                    # No name and no time in it: the same rows give the same file.
                    with gzip.GzipFile("", "wb", 6, target, 0) as compressed:
                        shutil.copyfileobj(rows, compressed, 256 << 10)
                    target.flush()
                    os.fsync(target.fileno())
                packed.rename(self.path)
            except OSError:
                packed.unlink(missing_ok=True)
                raise
        self._write_sidecar(complete=True)
        self._rows_path.unlink(missing_ok=True)
        return self._csv()

    def close(self) -> None:
        """Leave what has been written."""
        self._file.close()

    def _csv(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "rows": self._rows,
            "bytes": self._bytes,
            "sha256": self._hash.hexdigest(),
        }

    def _write(self, text: str) -> None:
        data = text.encode("ascii")
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(data)
        self._bytes += len(data)

    def _write_sidecar(self, *, complete: bool) -> None:
        document = {
            "format": FORMAT,
            "complete": complete,
            **self._constant,
            "blocks": self.blocks,
            "connections": self.connections,
            "csv": self._csv(),
        }
        with self._writing(self.sidecar):
            draft = self.sidecar.with_suffix(".json.tmp")
            with draft.open("w", encoding="ascii") as file:
                json.dump(document, file, allow_nan=False, separators=(",", ":"))
                file.write("\n")
                file.flush()
                if complete:
                    os.fsync(file.fileno())
            draft.rename(self.sidecar)
            if complete:
                folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)

    @staticmethod
    @contextlib.contextmanager
    def _writing(path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            step = "free some space on the host" if full else "set the host up again: playbooks/site.yml"
            raise AgentError("disk", f"{path}: {error.strerror or error}; {step}") from None


def prune(root: Path, *, keep: str) -> None:
    """Remove the oldest runs beyond KEEP_RUNS or KEEP_BYTES; never the one to be kept."""
    runs = []
    for folder in root.iterdir():
        if folder.name != keep and folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(OSError):
                size = sum(file.lstat().st_size for file in folder.iterdir())
                runs.append((folder.stat().st_mtime, size, folder))
    total = 0
    for number, (_, size, folder) in enumerate(sorted(runs, reverse=True), 1):
        total += size
        if number > KEEP_RUNS or total > KEEP_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
