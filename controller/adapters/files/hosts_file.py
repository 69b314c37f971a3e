"""`inventory/<fleet>/hosts.yml`: read the hosts of an Ansible YAML inventory (hosts_edits.py writes one).

Only what the controller needs is understood: groups, hosts and their connection variables. Everything else in the
file is Ansible's. Templates are not evaluated, but for `{{ inventory_dir }}`, which keeps a path true wherever the
project folder is moved and wherever `ansible-playbook` is started.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.adapters.files.documents import Document, Place, read_yaml
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.files.validation import field_words, found_words
from controller.model.errors import BadInput

GROUP_FIELDS = ("hosts", "children", "vars")
INVENTORY_DIR = re.compile(r"\{\{\s*inventory_dir\s*\}\}")
# Ansible's own name rule is wider; these are the names that are safe in file names and on a command line.
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")


@dataclass(frozen=True)
class InventoryHost:
    """A host of an inventory, which may stand in several groups."""

    name: str
    of_groups: dict[str, Any]
    own: dict[str, Any]
    where: str

    @property
    def variables(self) -> dict[str, Any]:
        """Its own over its groups' over those of `all`."""
        return self.of_groups | self.own


def names_hosts(path: Path) -> bool:
    """Whether the file is there, can be read, and names a host."""
    try:
        return path.is_file() and bool(read_hosts(path))
    except BadInput:
        return False


def read_hosts(path: Path) -> list[InventoryHost]:
    """The hosts in the file's order, each once. Raises BadInput."""
    document = read_yaml(path)
    if document.value is None:
        return []
    return _Groups(document).read()


class _Groups:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._folder = str(document.path.parent.resolve())
        self._found: dict[str, InventoryHost] = {}

    def read(self) -> list[InventoryHost]:
        top = self._mapping(self._document.value, ())
        # Variables of `all` reach every host, wherever it stands in the file.
        everywhere = self._variables(self._group(top.get("all"), ("all",)), ("all",)) if "all" in top else {}
        for name, value in top.items():
            self._walk(value, (name,), everywhere)
        return list(self._found.values())

    def _walk(self, value: Any, place: Place, inherited: dict[str, Any]) -> None:
        group = self._group(value, place)
        variables = inherited | self._variables(group, place)
        for name, own in self._mapping(group.get("hosts"), (*place, "hosts")).items():
            at = (*place, "hosts", name)
            if not HOST_NAME.fullmatch(str(name)):
                raise self._refuse(at, f"a host name holds letters, digits, . - _ only, not {str(name)[:60]!r}")
            host = self._found.setdefault(str(name), InventoryHost(str(name), {}, {}, self._document.where(at)))
            host.of_groups.update(variables)
            host.own.update(self._mapping(own, at))
        for name, child in self._mapping(group.get("children"), (*place, "children")).items():
            self._walk(child, (*place, "children", name), variables)

    def _group(self, value: Any, place: Place) -> dict[str, Any]:
        group = self._mapping(value, place)
        for key in group:
            if key not in GROUP_FIELDS:
                raise self._refuse(
                    (*place, key),
                    f"unknown field {field_words((*place, key))} in a group",
                    did_you_mean(str(key), GROUP_FIELDS, what="field"),
                )
        return group

    def _variables(self, group: dict[str, Any], place: Place) -> dict[str, Any]:
        return self._mapping(group.get("vars"), (*place, "vars"))

    def _mapping(self, value: Any, place: Place) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._refuse(place, f"{field_words(place)} must be a mapping, found {found_words(value)}")
        return {key: self._expand(item) for key, item in value.items()}

    def _expand(self, value: Any) -> Any:
        return INVENTORY_DIR.sub(lambda _: self._folder, value) if isinstance(value, str) else value

    def _refuse(self, place: Place, what: str, next_step: str = "") -> BadInput:
        step = next_step or "hosts stand under all: hosts: NAME: with ansible_host: ADDRESS"
        return BadInput(what, where=self._document.where(place), next_step=step)
