"""Read YAML and JSON strictly, remembering on which line each value stands, so that every complaint can name it.

Strict means: UTF-8, no duplicate keys, no tags, plain values only. Whatever is wrong raises BadInput, never anything
else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controller.model.errors import BadInput

MAXIMUM_BYTES = 1 << 20
MAXIMUM_NODES = 50_000
MAXIMUM_DEPTH = 50

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain value, and place -> (line, column), both counted from 1."""

    path: Path
    value: Any
    positions: dict[Place, tuple[int, int]] = field(default_factory=dict)

    def where(self, place: Place = ()) -> str:
        """`FILE:LINE` of the value at `place`, or of the nearest value around it."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.positions:
                return f"{self.path}:{self.positions[place[:length]][0]}"
        return str(self.path)

    def holds(self, place: Place) -> bool:
        return place in self.positions


def is_there(path: Path) -> bool:
    """Whether there is anything. Raises BadInput for a link that leads nowhere: what is missing is not nothing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return False
        why, step = (
            f"is a link to {path.readlink()}, which is not there",
            "mount or mend what it leads to, or remove it",
        )
    except OSError as error:
        why, step = f"cannot be read: {error.strerror or error}", "mend its name or permissions"
    else:
        return True
    raise BadInput(why, where=str(path), next_step=f"{step}, then run the command again")


def read_text(path: Path) -> str:
    """The file's text. Raises BadInput when it is missing, unreadable, too large or not UTF-8."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise BadInput(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            next_step="create it, or mend its permissions",
        ) from None
    if len(raw) > MAXIMUM_BYTES:
        raise BadInput(
            f"is larger than {MAXIMUM_BYTES // 1024} KiB", where=str(path), next_step="is this the right file?"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput("is not UTF-8 text", where=f"{path}:{line}", next_step="save the file as UTF-8") from None


def read_yaml(path: Path) -> Document:
    """Parse one YAML document; an empty file is None. Raises BadInput with file, line and column."""
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, path: Path) -> Document:
    """As `read_yaml`, for text that was read already."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _malformed(error, path) from None
    except (RecursionError, ValueError) as error:
        raise _unreadable(error, path) from None
    if node is None:
        return Document(path, None)
    return _Reader(path).read(node)


def read_json(path: Path) -> Document:
    """Parse one JSON document. Raises BadInput with file, line and column."""
    text = read_text(path)
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"is not valid JSON: {error.msg} (column {error.colno})",
            where=f"{path}:{error.lineno}",
            next_step="mend that line; editors and `python3 -m json.tool` show the place",
        ) from None
    except (RecursionError, ValueError) as error:
        raise _unreadable(error, path) from None
    return Document(path, value, _json_positions(text, path))


def _json_positions(text: str, path: Path) -> dict[Place, tuple[int, int]]:
    """JSON is YAML once tabs, which can only stand between its tokens, are blanks; where it is not, no line is told."""
    try:
        return parse_yaml(text.replace("\t", " "), path).positions
    except BadInput:
        return {}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the field {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


class _Reader:
    """Turns a node tree into plain values, noting positions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._positions: dict[Place, tuple[int, int]] = {}
        self._nodes = 0
        self._scalars = yaml.SafeLoader("")

    def read(self, node: yaml.Node) -> Document:
        value = self._value(node, ())
        return Document(self._path, value, self._positions)

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self._nodes += 1
        self._positions.setdefault(place, _position(node))
        if self._nodes > MAXIMUM_NODES or len(place) > MAXIMUM_DEPTH:
            raise self._refuse(node, "is too large or too deeply nested")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != "tag:yaml.org,2002:seq":
                raise self._refuse(node, f"the tag {node.tag} is not allowed here")
            return [self._value(child, (*place, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str | int, Any]:
        if node.tag != "tag:yaml.org,2002:map":
            raise self._refuse(node, f"the tag {node.tag} is not allowed here")
        found: dict[str | int, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise self._refuse(key_node, "a key must be text: quote it")
            if key in found:
                raise self._refuse(key_node, f"the field {key!r} stands twice in one mapping")
            self._positions[(*place, key)] = _position(key_node)
            found[key] = self._value(value_node, (*place, key))
        return found

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag not in {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str")}:
            raise self._refuse(node, f"{_tag_words(node.tag)} is not allowed here")
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, ArithmeticError, LookupError) as error:
            raise self._refuse(node, f"cannot be read: {error}") from None

    def _refuse(self, node: yaml.Node, what: str) -> BadInput:
        line, column = _position(node)
        return BadInput(
            f"{what} (column {column})", where=f"{self._path}:{line}", next_step="mend that line, then run it again"
        )


def _tag_words(tag: str) -> str:
    if tag == "tag:yaml.org,2002:timestamp":
        return "a date (quote it if it is text)"
    return f"the tag {tag}"


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _malformed(error: yaml.YAMLError, path: Path) -> BadInput:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    column = f" (column {mark.column + 1})" if mark else ""
    return BadInput(
        f"is not valid YAML: {problem}{column}",
        where=where,
        next_step="mend that line; often it is indentation, a missing colon or an unclosed quote",
    )


def _unreadable(error: Exception, path: Path) -> BadInput:
    what = "is too deeply nested" if isinstance(error, RecursionError) else f"cannot be read: {error}"
    return BadInput(what, where=str(path), next_step="mend the file, then run the command again")
