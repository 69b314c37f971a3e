"""`zz-kept.yml`: the role parameters that trials have kept, one line each, with run and effect as its comment."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.documents import Document, parse_yaml, read_text
from controller.adapters.files.validation import found_words
from controller.model.errors import BadInput
from controller.model.experiment import ParameterValue
from controller.model.project import Project

HEADER = """\
# Role parameters that trials have kept; written by `controller optimize`, loaded last, so it wins.
# To undo one, delete its line and run: ansible-playbook -i inventory/{fleet} playbooks/site.yml
"""

PARAMETER = re.compile(r"nginx_[a-z0-9_]{1,60}")


def kept_file(project: Project, fleet: str) -> Path:
    return project.inventory(fleet) / "group_vars" / "all" / "zz-kept.yml"


def read_kept_text(project: Project, fleet: str) -> str:
    """The file as it is; empty when nothing was kept yet. Raises BadInput when it cannot be read."""
    path = kept_file(project, fleet)
    return read_text(path) if path.exists() else ""


def read_kept(project: Project, fleet: str) -> dict[str, ParameterValue]:
    """Parameter -> value. Raises BadInput with file and line."""
    return _parse(read_kept_text(project, fleet), kept_file(project, fleet))[1]


def write_kept(
    project: Project,
    fleet: str,
    *,
    parameters: dict[str, ParameterValue],
    run_id: str,
    experiment: str,
    effect: str,
) -> None:
    """Lay `parameters` over what was kept, leaving every other line as it is. Writing the same twice changes nothing.

    Raises BadInput when the file is damaged, HostFailed when it cannot be written.
    """
    path = kept_file(project, fleet)
    text = read_kept_text(project, fleet)
    document, _ = _parse(text, path)
    comment = _comment(run_id, experiment, effect)
    lines = _without(text.splitlines(), document, set(parameters)) or HEADER.format(fleet=fleet).splitlines()
    lines += [f"{name}: {_one_line(value)}  # {comment}" for name, value in parameters.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n")


def _parse(text: str, path: Path) -> tuple[Document, dict[str, ParameterValue]]:
    document = parse_yaml(text, path)
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise BadInput(
            f"must be a mapping of role parameters, found {found_words(value)}",
            where=document.where(),
            next_step="one `nginx_NAME: VALUE` a line; an empty file means that nothing is kept",
        )
    for name, item in value.items():
        plain = isinstance(item, bool | int | float | str)
        if not PARAMETER.fullmatch(str(name)) or not (
            plain or (isinstance(item, list) and all(isinstance(entry, str) for entry in item))
        ):
            raise BadInput(
                f"`{name}` is not a role parameter with a plain value",
                where=document.where((name,)),
                next_step="only nginx_* parameters belong here: mend or delete the line",
            )
    return document, value


def _without(lines: list[str], document: Document, names: set[str]) -> list[str]:
    """The lines but those of the named parameters: from the name up to the next name at the left margin."""
    starts = sorted(
        (line, str(place[0])) for place, (line, _) in document.positions.items() if len(place) == 1 and place[0]
    )
    gone: set[int] = set()
    for index, (start, name) in enumerate(starts):
        if name in names:
            end = starts[index + 1][0] if index + 1 < len(starts) else len(lines) + 1
            gone.add(start)
            # What follows an entry and is indented belongs to it; comments and blank lines do not.
            gone.update(at for at in range(start + 1, end) if lines[at - 1].startswith((" ", "- ")))
    return [line for number, line in enumerate(lines, 1) if number not in gone]


def _comment(*parts: str) -> str:
    """The parts on one line, without what would end it or the document."""
    text = ", ".join(part for part in parts if part)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _one_line(value: ParameterValue) -> str:
    """The value as YAML on one line, so that deleting the line undoes it."""
    style = '"' if isinstance(value, str | list) else None
    text: str = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=1 << 30)
    return text.removesuffix("...\n").strip()
