"""Where zz-kept.yml is written: `inventory/<fleet>/group_vars/all/`.

Ansible reads that folder, or else a file of that name. A folder that is made beside the file switches off all that the
file says, so it is made only where there is no such file. Reading is for Ansible, whichever of them is there.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from controller.adapters.files.documents import is_there
from controller.model.errors import BadInput
from controller.model.project import Project

FILES = ("all.yml", "all.yaml", "all.json")


def group_vars_of_all(project: Project, fleet: str) -> Path:
    """The folder to write into, which may not be there yet. Raises BadInput where Ansible would not read it then."""
    above = project.inventory(fleet) / "group_vars"
    folder = above / "all"
    if is_there(above) and not above.is_dir():
        raise BadInput("is no folder, so Ansible skips it", where=str(above), next_step="move it away")
    if is_there(folder) and not folder.is_dir():
        aside = above / "all.aside"
        raise _refuse(
            folder, f"mv {_word(folder)} {_word(aside)} && mkdir {_word(folder)} && mv {_word(aside)}", folder
        )
    for path in (above / name for name in FILES):
        if is_there(path) and not folder.is_dir():
            raise _refuse(path, f"mkdir {_word(folder)} && mv {_word(path)}", folder)
    return folder


def _refuse(path: Path, move: str, folder: Path) -> BadInput:
    return BadInput(
        f"must be in a folder {folder}: what trials keep is written there, "
        "and Ansible would not read this file beside it",
        where=str(path),
        next_step=f"{move} {_word(folder / 'all.yml')} (a `ratchet:` in it belongs into ratchet.yml there)",
    )


def _word(path: Path) -> str:
    return shlex.quote(str(path))
