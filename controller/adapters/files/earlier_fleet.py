"""A fleet's inventory as it would be with other kept parameters, for as long as something is rendered from it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.adapters.files.group_vars import group_vars_of_all
from controller.adapters.files.kept import kept_file
from controller.model.errors import HostFailed
from controller.model.project import Project


@contextmanager
def fleet_with_kept(project: Project, fleet: str, text: str) -> Iterator[str]:
    """The name of an inventory that is the fleet's but for its zz-kept.yml, which says `text`. For who holds the fleet.

    It stands beside the fleet's, so that paths relative to it lead where they did. Raises HostFailed when it cannot be
    written, BadInput where its group_vars/all is no folder.
    """
    group_vars_of_all(project, fleet)
    real = project.inventory(fleet)
    inside = kept_file(project, fleet).parent.relative_to(real)
    folder: Path | None = None
    try:
        try:
            _remove_left(real.parent, fleet)
            folder = Path(tempfile.mkdtemp(prefix=f".kept-of-{fleet}.", dir=real.parent))
            _link(real, folder, inside.parts)
            (folder / inside / kept_file(project, fleet).name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise HostFailed(
                f"cannot be written to: {error.strerror or error}",
                where=str(real.parent),
                next_step="make it writable, or free space on its disk, then run the command again",
            ) from None
        yield folder.name
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_left(inventories: Path, fleet: str) -> None:
    """What a killed controller has left."""
    for entry in inventories.iterdir():
        if re.fullmatch(rf"\.kept-of-{re.escape(fleet)}\.[a-z0-9_]{{8}}", entry.name) and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)


def _link(real: Path, folder: Path, way: tuple[str, ...]) -> None:
    """Everything is a link to the fleet's own, but the folders on the way to the file, and that file."""
    if way:
        (folder / way[0]).mkdir()
        _link(real / way[0], folder / way[0], way[1:])
    for entry in real.iterdir() if real.is_dir() else ():
        if entry.name not in {*way[:1], *(() if way else ("zz-kept.yml",))}:
            (folder / entry.name).symlink_to(entry.resolve())
