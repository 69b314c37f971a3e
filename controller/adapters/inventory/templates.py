"""Templates in variables that the controller needs itself, which `ansible-inventory` leaves as they are written.

Evaluated is what needs the inventory and Jinja only: variables of this host and of others, `inventory_dir`, `groups`,
the environment, paths. Whatever else of Ansible stands in one (other lookups, facts, variables of playbooks and roles)
is refused by name: a wrong address is worse than none.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import SandboxedEnvironment

from controller.adapters.inventory.reading import Inventory

LARGEST_CHARACTERS = 10_000
DEEPEST = 20


class Unfit(Exception):
    """Why a value cannot be had: `uses lookup('file'), which only Ansible evaluates`."""


class Variables(Mapping[str, Any]):
    """A host's variables, each evaluated when it is asked for. Raises Unfit then."""

    def __init__(self, inventory: Inventory, host: str, environment: Mapping[str, str], deep: int = 0) -> None:
        self._inventory = inventory
        self._host = host
        self._environment = environment
        self._deep = deep
        self._plain = _magic(inventory, host) | inventory.hosts[host]

    def __getitem__(self, name: str) -> Any:
        if name == "hostvars":
            return _HostVariables(self._inventory, self._environment, self._deep + 1)
        return self._evaluated(self._plain[name])

    def __contains__(self, name: object) -> bool:
        return name in self._plain or name == "hostvars"

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)

    def _evaluated(self, value: Any) -> Any:
        if isinstance(value, dict):
            if "__ansible_vault" in value:
                raise Unfit("is encrypted by itself (!vault): encrypt the whole file that it stands in instead")
            return {key: self._evaluated(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._evaluated(item) for item in value]
        if isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#")):
            return self._rendered(value)
        return value

    def _rendered(self, text: str) -> str:
        if self._deep >= DEEPEST:
            raise Unfit("refers to itself")
        inner = Variables(self._inventory, self._host, self._environment, self._deep + 1)
        jinja = SandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True)
        jinja.globals = {"lookup": self._lookup}
        jinja.filters |= {name: getattr(os.path, name) for name in ("basename", "dirname", "expanduser", "realpath")}
        try:
            names = meta.find_undeclared_variables(jinja.parse(text)) - {"lookup"}
            known = {name: inner[name] for name in names if name in inner}
            rendered = jinja.from_string(text).render(known)
        except Unfit:
            raise
        except Exception as error:  # filters and tests raise what they like
            raise Unfit(f"holds a template that only Ansible could evaluate: {text!r}: {error}") from None
        if len(rendered) > LARGEST_CHARACTERS:
            raise Unfit(f"is longer than {LARGEST_CHARACTERS} characters")
        return rendered

    def _lookup(self, kind: str, *names: str) -> str:
        if kind not in {"env", "ansible.builtin.env"}:
            raise Unfit(f"uses lookup({kind!r}), which only Ansible evaluates")
        return ",".join(self._environment.get(name, "") for name in names)


class _HostVariables(Mapping[str, Variables]):
    def __init__(self, inventory: Inventory, environment: Mapping[str, str], deep: int) -> None:
        self._inventory = inventory
        self._environment = environment
        self._deep = deep

    def __getitem__(self, host: str) -> Variables:
        if host not in self._inventory.hosts:
            raise KeyError(host)
        return Variables(self._inventory, host, self._environment, self._deep)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inventory.hosts)

    def __len__(self) -> int:
        return len(self._inventory.hosts)


def _magic(inventory: Inventory, host: str) -> dict[str, Any]:
    """What Ansible itself says about a host. Which of several files names it is not told by `ansible-inventory`."""
    groups = [name for name, hosts in inventory.groups.items() if host in hosts and name != "all"]
    found: dict[str, Any] = {
        "inventory_hostname": host,
        "inventory_hostname_short": host.partition(".")[0],
        "group_names": sorted(groups),
        "groups": inventory.groups,
    }
    folders = {path.parent for path in inventory.sources}
    if len(folders) == 1:
        found["inventory_dir"] = str(folders.pop())
    if len(inventory.sources) == 1:
        found["inventory_file"] = str(inventory.sources[0])
    return found
