"""Read a fleet's settings: the `ratchet:` of its group_vars."""

from __future__ import annotations

import re
from pathlib import Path

from controller.adapters.files.documents import is_there, read_text, read_yaml
from controller.adapters.files.group_vars import FILES
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.files.validation import validate
from controller.model.errors import BadInput
from controller.model.fleet import FLEET_NAME, FleetSettings
from controller.model.project import Project

SETTINGS = "ratchet.yml"


def load_settings(project: Project, name: str) -> FleetSettings:
    """The fleet's settings; defaults where it has no ratchet.yml. Raises BadInput."""
    known = project.fleets()
    if name not in known:
        raise BadInput(
            f"unknown fleet {name}",
            where=str(project.root / "inventory"),
            next_step=did_you_mean(name, known, what="fleet"),
        )
    if not re.fullmatch(FLEET_NAME, name):
        raise BadInput(
            f"{name!r} cannot be a fleet's name",
            where=str(project.inventory(name)),
            next_step="rename the folder: at most 63 letters, digits and _ . -, beginning with a letter or digit",
        )
    _check_settings(project, name)
    path = _settings_file(project, name)
    if path is None:
        return FleetSettings()
    document = read_yaml(path)
    value = document.value
    if value is None:
        return FleetSettings()
    if path.name == SETTINGS and (not isinstance(value, dict) or set(value) != {"ratchet"}):
        extra = next((key for key in value if key != "ratchet"), None) if isinstance(value, dict) else None
        raise BadInput(
            "must hold exactly one field, `ratchet`" + (f", found `{extra}`" if extra is not None else ""),
            where=document.where(() if extra is None else (extra,)),
            next_step="role parameters (nginx_*) belong into nginx.yml beside it",
        )
    if not isinstance(value, dict) or "ratchet" not in value:
        return FleetSettings()
    return validate(FleetSettings, document, place=("ratchet",))


def _settings_file(project: Project, name: str) -> Path | None:
    """ratchet.yml, or what holds a `ratchet:` in the place of its folder; None where neither is there."""
    folder = project.inventory(name) / "group_vars" / "all"
    if is_there(folder / SETTINGS):
        return folder / SETTINGS
    for path in (folder, *(folder.with_name(file) for file in FILES)):
        # Of several Ansible reads the first.
        if is_there(path):
            found = path.is_file() and re.search(r"""^\W*ratchet["']? *:|"ratchet" *:""", read_text(path), re.MULTILINE)
            return path if found else None
    return None


def _check_settings(project: Project, name: str) -> None:
    """None is skipped without a word: a link that leads nowhere, or a `ratchet:` elsewhere. Raises BadInput."""
    folder = project.inventory(name) / "group_vars" / "all"
    settings = [path for path in sorted(folder.iterdir()) if path.name[:1] != "."] if folder.is_dir() else []
    beside = [folder.parent, folder, *(folder.with_name(file) for file in FILES)]
    for path in (project.inventory(name) / "hosts.yml", project.known_hosts(name), *beside, *settings):
        is_there(path)
    for path in settings:
        if path.name != SETTINGS and path.suffix in {"", ".yml", ".yaml"} and path.is_file():
            found = re.search("^ratchet *:", read_text(path), re.MULTILINE)
            if found:
                raise BadInput(
                    "`ratchet` is not read here",
                    where=f"{path}:{found.string.count(chr(10), 0, found.start()) + 1}",
                    next_step=f"move it, and what is under it, to {folder / SETTINGS}",
                )
