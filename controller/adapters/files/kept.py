"""`zz-kept.yml`: the role parameters that trials have kept, one line each, with run and effect as its comment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from controller.adapters.files.atomic import check_writable, make_folder, write_atomically
from controller.adapters.files.documents import Document, is_there, parse_yaml, read_text
from controller.adapters.files.group_vars import group_vars_of_all
from controller.adapters.files.validation import found_words
from controller.model.errors import BadInput
from controller.model.experiment import ParameterValue
from controller.model.project import Project

HEADER = """\
# Role parameters that trials have kept, written by `controller optimize`. Loaded last of group_vars/all: host_vars win.
# To undo one, delete its line and run: ansible-playbook -i inventory/{fleet} playbooks/site.yml
"""

# In a document without values, where no `#` can stand in a text.
COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
PARAMETER = re.compile(r"nginx_[a-z0-9_]{1,60}")


def kept_file(project: Project, fleet: str) -> Path:
    return project.inventory(fleet) / "group_vars" / "all" / "zz-kept.yml"


def read_kept_text(project: Project, fleet: str) -> str:
    """The file as it is; empty when nothing was kept yet. Raises BadInput when it cannot be read."""
    path = kept_file(project, fleet)
    return read_text(path) if is_there(path) else ""


def read_kept(project: Project, fleet: str) -> dict[str, ParameterValue]:
    """Parameter -> value. Raises BadInput with file and line."""
    return _parse(read_kept_text(project, fleet), kept_file(project, fleet))[1]


def check_kept(project: Project, fleet: str) -> None:
    """That parameters can be kept. Raises BadInput: a damaged file or folder; HostFailed: it cannot be written."""
    read_kept(project, fleet)
    _check_place(project, fleet)


def _check_place(project: Project, fleet: str) -> None:
    group_vars_of_all(project, fleet)
    check_writable(kept_file(project, fleet))


def with_kept(
    project: Project, fleet: str, *, parameters: Mapping[str, ParameterValue], comment: str, text: str | None = None
) -> str:
    """The file's text with `parameters` laid over what was kept, every other line as it is; `comment` explains them.

    It is read back: what it says is what was asked for. `text`: the file's, where it is known already.
    Raises BadInput when the file is damaged, or so odd that nothing can be laid over it; HostFailed when it cannot be
    written.
    """
    path = kept_file(project, fleet)
    _check_place(project, fleet)
    text = read_kept_text(project, fleet) if text is None else text
    before = _parse(text, path)[1]
    wanted = before | dict(parameters)
    if _typed(before) == _typed(wanted):
        return text
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 1 << 30
    editor.representer.add_representer(_Float, _float_node)
    try:
        document = editor.load(text)
        if document is None:
            # Nothing but comments, or nothing at all.
            comments = "".join(f"{line}\n" for line in COMMENT.findall(text)) if text else HEADER.format(fleet=fleet)
            document = editor.load(f"{comments}{{}}\n")
        document.fa.set_block_style()
        for name, value in parameters.items():
            # What was kept before with this value was explained then.
            if name not in before or _typed(before)[name] != _typed(parameters)[name]:
                document[name] = _plain(value)
                _explain(document, name, comment)
        out = StringIO()
        editor.dump(document, out)
        after = out.getvalue()
        read = _parse(after, path)[1]
    except (YAMLError, BadInput, AttributeError, TypeError, ValueError) as error:
        raise _odd(path, str(error).splitlines()[0]) from None
    if _typed(read) != _typed(wanted):
        raise _odd(path, "the new text would not say what was kept")
    return after


def _typed(parameters: Mapping[str, ParameterValue]) -> dict[str, tuple[type, ParameterValue]]:
    """To be compared: `true` is no 1."""
    return {name: (type(value), value) for name, value in parameters.items()}


class _Float(float):
    """Written as PyYAML writes it, which takes ruamel's 5e-324 for text."""


def _float_node(representer: RoundTripRepresenter, value: _Float) -> ScalarNode:
    text = yaml.safe_dump(float(value)).splitlines()[0]
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def _explain(document: CommentedMap, name: str, comment: str) -> None:
    """Put the comment at the end of the parameter's line; what ruamel keeps behind it are the lines below."""
    below = ""
    if name in document.ca.items and document.ca.items[name][2]:
        below = str(document.ca.items[name].pop(2).value).partition("\n")[2]
        del document.ca.items[name]
    document.yaml_add_eol_comment(_one_line(comment) or "kept", name, column=0)
    document.ca.items[name][2].value += f"\n{below}"


def write_kept_text(project: Project, fleet: str, text: str) -> None:
    """Replace the file. Raises HostFailed when it cannot be written, BadInput as `group_vars_of_all`."""
    make_folder(group_vars_of_all(project, fleet))
    write_atomically(kept_file(project, fleet), text)


def _odd(path: Path, why: str) -> BadInput:
    return BadInput(
        f"cannot be added to: {why}", where=str(path), next_step="write it as plain lines, one `nginx_NAME: VALUE` each"
    )


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


def _one_line(text: str) -> str:
    """The text without what would end the line or the document."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _plain(value: ParameterValue) -> object:
    """The value on one line, so that deleting the line undoes it; text in quotes, so that every reader takes it so."""
    if isinstance(value, str):
        return DoubleQuotedScalarString(value)
    if isinstance(value, list):
        items = CommentedSeq([DoubleQuotedScalarString(item) for item in value])
        items.fa.set_flow_style()
        return items
    return _Float(value) if isinstance(value, float) else value
