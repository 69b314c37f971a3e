"""Write provisioned hosts into `inventory/<fleet>/hosts.yml`, and take deleted ones out of it.

The file is the operator's too: groups, variables, hosts and comments that stand there stay. What is edited is the
text, so that nothing else of it moves; where that cannot be done (`hosts: {a: ..., b: ...}` on one line, for one), the
file is written anew with all that it says, and a copy of it is kept.
"""

from __future__ import annotations

import copy
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.documents import Document, Place, is_there, parse_yaml, read_text, read_yaml
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.files.validation import field_words, found_words
from controller.model.errors import BadInput

HEADER = """\
# Written by `controller provision`, which keeps what else you write here. Plain Ansible reads it too:
#   ansible-playbook -i inventory/{fleet} playbooks/site.yml
"""
GROUP_FIELDS = ("hosts", "children", "vars")
# (start, end, the new text between them)
Edit = tuple[int, int, str]
Edits = Callable[[yaml.MappingNode, str], Iterator[Edit]]


def write_hosts(path: Path, fleet: str, addresses: dict[str, str], tell: Callable[[str], None]) -> bool:
    """Give these hosts (name -> address) their addresses in hosts.yml; returns whether it changed.

    `tell` gets a sentence about what was an operator's and is changed. Raises BadInput for a file that cannot be read,
    HostFailed for one that cannot be written.
    """
    before = _groups(path)
    wanted = copy.deepcopy(before)
    known = list(_hosts_of(wanted))
    if not any(known):
        everybody = wanted.get("all") or {}
        wanted["all"] = everybody | {"vars": _connection(fleet) | (everybody.get("vars") or {})}
    for name, address in addresses.items():
        said = [hosts[name] for hosts in known if (hosts.get(name) or {}).get("ansible_host") is not None]
        for variables in said:
            if variables["ansible_host"] != address:
                tell(f"{name}: hosts.yml said {variables['ansible_host']}, the cloud says {address}: changed")
                variables["ansible_host"] = address
        if not said:
            everybody = wanted["all"] = wanted.get("all") or {}
            hosts = everybody["hosts"] = everybody.get("hosts") or {}
            hosts[name] = (hosts.get(name) or {}) | {"ansible_host": address}
    if wanted == before:
        return False
    _write(path, fleet, wanted, lambda tree, text: _addresses(tree, text, addresses), tell)
    return True


def written_hosts(path: Path) -> dict[str, str]:
    """Name -> `ansible_host` of each host that the file names; empty where the file gives it none. Raises BadInput."""
    found: dict[str, str] = {}
    for hosts in _hosts_of(_groups(path)):
        for name, variables in hosts.items():
            found[str(name)] = str((variables or {}).get("ansible_host") or found.get(str(name), ""))
    return found


def forget_hosts(path: Path, fleet: str, names: Collection[str], tell: Callable[[str], None]) -> bool:
    """Take these hosts out of hosts.yml, and remove it where no more is left than provisioning writes.

    Returns whether it changed; `tell` and errors as of `write_hosts`.
    """
    before = _groups(path)
    wanted = copy.deepcopy(before)
    for hosts in _hosts_of(wanted):
        for name in names:
            hosts.pop(name, None)
    # A link's file is not this fleet's alone.
    if (
        path.is_file()
        and not path.is_symlink()
        and _filled(wanted)
        in (
            {"all": {"hosts": {}}},
            {"all": {"vars": _connection(fleet), "hosts": {}}},
        )
    ):
        path.unlink()
        return True
    if wanted == before:
        return False
    _write(path, fleet, wanted, lambda tree, _: _cuts(tree, names), tell)
    return True


def _groups(path: Path) -> dict[str, Any]:
    """What the file says, templates as they stand; empty when there is none. Raises BadInput."""
    if not is_there(path):
        return {}
    document = read_yaml(path)
    _check(document, document.value, ())
    return dict(document.value or {})


def _check(document: Document, groups: Any, place: Place) -> None:
    """That it is made of groups and hosts, as far as it is gone through here. Raises BadInput."""
    for name, group in _mapping(document, groups, place).items():
        at = (*place, name)
        for field in _mapping(document, group, at):
            if field not in GROUP_FIELDS:
                raise BadInput(
                    f"unknown field {field_words((*at, field))} in a group",
                    where=document.where((*at, field)),
                    next_step=did_you_mean(str(field), GROUP_FIELDS, what="field"),
                )
        for host, variables in _mapping(document, (group or {}).get("hosts"), (*at, "hosts")).items():
            _mapping(document, variables, (*at, "hosts", host))
        _mapping(document, (group or {}).get("vars"), (*at, "vars"))
        _check(document, (group or {}).get("children"), (*at, "children"))


def _mapping(document: Document, value: Any, place: Place) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(
            f"{field_words(place)} must be a mapping, found {found_words(value)}",
            where=document.where(place),
            next_step="hosts stand under all: hosts: NAME: with ansible_host: ADDRESS",
        )
    return value


def _connection(fleet: str) -> dict[str, Any]:
    """How provisioned hosts are reached."""
    return {
        "ansible_user": "ratchet",
        "ansible_ssh_private_key_file": f"{{{{ inventory_dir }}}}/../../.ratchet/keys/{fleet}",
        "ansible_ssh_common_args": "-o IdentitiesOnly=yes -o StrictHostKeyChecking=yes "
        "-o 'UserKnownHostsFile=\"{{ inventory_dir }}/known_hosts\"'",
    }


def _hosts_of(groups: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The `hosts` of every group."""
    for group in groups.values():
        if group and group.get("hosts") is not None:
            yield group["hosts"]
        yield from _hosts_of((group or {}).get("children") or {})


def _write(path: Path, fleet: str, wanted: dict[str, Any], edits: Edits, tell: Callable[[str], None]) -> None:
    text = read_text(path) if path.is_file() else ""
    new = _edited(text, edits, wanted, path)
    if not new:
        if text and text != _dumped(fleet, dict(parse_yaml(text, path).value or {})):
            kept = path.with_name(f"{path.name}.bak")
            write_atomically(kept, text, stat.S_IMODE(path.stat().st_mode))
            tell(f"hosts.yml is written anew: all that it says stays, but for its comments; {kept} is as it was")
        new = _dumped(fleet, wanted)
    write_atomically(path, new)


def _dumped(fleet: str, groups: dict[str, Any]) -> str:
    return HEADER.format(fleet=fleet) + yaml.safe_dump(groups, sort_keys=False, width=200)


def _edited(text: str, edits: Edits, wanted: dict[str, Any], path: Path) -> str:
    """The edited text when it says just what is wanted; empty when it does not."""
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(tree, yaml.MappingNode):
        return ""
    for start, end, new in sorted(set(edits(tree, text)), reverse=True):
        text = text[:start] + new + text[end:]
    try:
        said = parse_yaml(text, path).value
    except BadInput:
        return ""
    return text if _filled(said) == _filled(wanted) else ""


def _filled(value: Any) -> Any:
    """The same with `{}` for what is left empty."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return {} if value is None else value


def _addresses(tree: yaml.MappingNode, text: str, addresses: dict[str, str]) -> Iterator[Edit]:
    """The addresses that differ, and the hosts that are missing behind the last one of `all`."""
    missing = dict(addresses)
    for hosts in _host_nodes(tree):
        for name, variables in hosts.value:
            for key, value in variables.value if isinstance(variables, yaml.MappingNode) else []:
                if name.value in addresses and key.value == "ansible_host":
                    missing.pop(name.value, None)
                    yield value.start_mark.index, value.end_mark.index, addresses[name.value]
    everybody = _child(_child(tree, "all"), "hosts")
    if missing and isinstance(everybody, yaml.MappingNode) and everybody.value and not everybody.flow_style:
        last, variables = everybody.value[-1]
        line_end = text.find("\n", max(last.end_mark.index, _end(variables)))
        at, indent = line_end if line_end >= 0 else len(text), " " * last.start_mark.column
        new = "".join(f"\n{indent}{name}:\n{indent}  ansible_host: {there}" for name, there in missing.items())
        yield at, at, new


def _cuts(tree: yaml.MappingNode, names: Collection[str]) -> Iterator[Edit]:
    """The lines of these hosts."""
    for hosts in _host_nodes(tree):
        for name, variables in hosts.value:
            if name.value in names and not hosts.flow_style:
                mark = name.start_mark
                end = mark.buffer.find("\n", max(name.end_mark.index, _end(variables)))
                yield mark.index - mark.column, end + 1, ""


def _host_nodes(groups: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """As `_hosts_of`, of the text."""
    for _, group in groups.value if isinstance(groups, yaml.MappingNode) else []:
        hosts = _child(group, "hosts")
        if isinstance(hosts, yaml.MappingNode):
            yield hosts
        yield from _host_nodes(_child(group, "children"))


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _end(node: yaml.Node) -> int:
    """Where the last word of a node ends: a block's own end is where the next thing begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)
