"""Where an inventory's text says something of a host: for messages, since `ansible-inventory` tells no lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

LARGEST_BYTES = 1 << 20


def where_set(folder: Path, host: str, variable: str) -> str:
    """`FILE:LINE` of the variable, as near as the usual places tell; else of the host, else the folder."""
    own, beside = folder / "host_vars" / host, [folder / "group_vars"]
    in_hosts_file: dict[str, int] = {}
    for key, line in _host_lines(folder / "hosts.yml", host):
        in_hosts_file.setdefault(key, line)
    for path in _texts([own, *(own.with_name(f"{host}.{suffix}") for suffix in ("yml", "yaml", "json"))]):
        if variable and (line := _line(path, variable)):
            return f"{path}:{line}"
    if variable in in_hosts_file:
        return f"{folder / 'hosts.yml'}:{in_hosts_file[variable]}"
    for path in _texts(beside):
        if variable and (line := _line(path, variable)):
            return f"{path}:{line}"
    return f"{folder / 'hosts.yml'}:{in_hosts_file['']}" if in_hosts_file else str(folder)


def _texts(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        elif path.is_file():
            yield path


def _line(path: Path, variable: str) -> int:
    """Where the file sets it; 0 where it does not."""
    try:
        text = path.read_bytes()[:LARGEST_BYTES].decode(errors="replace")
    except OSError:
        return 0
    found = re.search(rf"""(?:^|[{{,])[\s"'-]*{re.escape(variable)}["']?\s*[:=]""", text, re.MULTILINE)
    return text.count("\n", 0, found.end()) + 1 if found else 0


def _host_lines(path: Path, host: str) -> Iterator[tuple[str, int]]:
    """(variable, line) of a host in a YAML inventory, and (empty, the line of its name)."""
    try:
        tree = yaml.compose(path.read_bytes()[:LARGEST_BYTES].decode(), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return
    for name, variables in _entries(tree):
        if name.value == host:
            yield "", name.start_mark.line + 1
            for key, _ in _pairs(variables):
                yield key.value, key.start_mark.line + 1


def _entries(groups: yaml.Node | None, deep: int = 0) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    for _, group in _pairs(groups) if deep < 50 else ():
        for key, value in _pairs(group):
            if key.value == "hosts":
                yield from _pairs(value)
            if key.value == "children":
                yield from _entries(value, deep + 1)


def _pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            yield key, value
