"""What `controller prune` deletes in runs/: a run's evidence, once its mark tells of it, or its whole folder."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from controller.adapters.files.atomic import write_atomically
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project
from controller.model.run import Pruned

MARK = "pruned.json"
# Its input, which only resuming it needs. It goes before the mark, which takes its room where the disk is full.
REQUEST = "request.json"
# Of trials/: what `show` and `rollback` need.
DOCUMENTS = {"plan.json", "settled.json"}
# How a folder is named while it is deleted; a dot hides it from whoever lists the runs.
GOING = ".pruned-"


@dataclass(frozen=True)
class Size:
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.files + other.files, self.bytes + other.bytes)


def read_pruned(project: Project, run_id: str) -> Pruned | None:
    """What the run's mark says; None when its evidence was never pruned. Raises BadInput."""
    path = project.runs / run_id / MARK
    try:
        return Pruned.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise BadInput("cannot be read, or is damaged", where=str(path), next_step="restore it from a copy") from None


def evidence_of(project: Project, run_id: str) -> Size:
    """Of the run's evidence that is still there, its input included."""
    return _size([*_evidence(project.runs / run_id), *_request(project.runs / run_id)])


def delete_evidence(project: Project, run_id: str, at: str) -> None:
    """Mark the run, then delete its evidence, CSVs first. Whoever is killed in between may do it again.

    Raises HostFailed, with the evidence whole when it cannot be marked.
    """
    folder = project.runs / run_id
    found = _evidence(folder)
    size = evidence_of(project, run_id)
    with _told(folder):
        for path in _request(folder):
            path.unlink(missing_ok=True)
        if found and not (folder / MARK).is_file():
            mark = Pruned(at=at, files=size.files, bytes=size.bytes)
            write_atomically(folder / MARK, mark.model_dump_json(indent=1) + "\n")
        for path in found:
            path.unlink(missing_ok=True)
        for below, _, _ in os.walk(folder / "trials", topdown=False):
            with contextlib.suppress(OSError):
                Path(below).rmdir()  # none but an empty one


def whole_size(project: Project, run_id: str) -> Size:
    """Of everything in a run's folder."""
    return _size(_files(project.runs / run_id))


def delete_run(project: Project, run_id: str) -> None:
    """Delete the run's folder; from its first moment nobody sees half of it. Raises HostFailed."""
    with _told(project.runs / run_id), contextlib.suppress(FileNotFoundError):
        going = project.runs / f"{GOING}{run_id}"
        (project.runs / run_id).rename(going)
        shutil.rmtree(going)


def finish_deletions(project: Project) -> None:
    """Delete what is left of folders whose deletion was broken off. Raises HostFailed."""
    for folder in project.runs.glob(f"{GOING}*"):
        with _told(folder), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _evidence(folder: Path) -> list[Path]:
    found = [path for path in _files(folder / "trials") if path.name not in DOCUMENTS]
    return sorted(found, key=lambda path: (not path.name.endswith(".csv.gz"), str(path)))


def _request(folder: Path) -> list[Path]:
    return [path for path in [folder / REQUEST] if path.is_file()]


def _files(folder: Path) -> list[Path]:
    """A link to a folder is not followed."""
    return [Path(below) / name for below, _, names in os.walk(folder) for name in names]


def _size(paths: list[Path]) -> Size:
    total = Size()
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            total += Size(1, path.lstat().st_size)
    return total


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostFailed(
            f"cannot be deleted: {error.strerror or error}",
            where=str(error.filename or folder),
            next_step="make it this user's, then run the command again: it goes on",
        ) from None
