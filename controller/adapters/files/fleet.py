"""Read a fleet: its settings, its hosts, and the files that a connection to them needs."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

from controller.adapters.files.documents import is_there, read_text, read_yaml
from controller.adapters.files.group_vars import group_vars_of_all
from controller.adapters.files.hosts_file import InventoryHost, read_hosts
from controller.adapters.files.known_hosts import read_known_hosts
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.files.validation import validate
from controller.model.errors import BadInput
from controller.model.fleet import FLEET_NAME, Fleet, FleetSettings, Host
from controller.model.project import Project

MAXIMUM_PORT = 65535


def load_fleet(project: Project, name: str) -> Fleet:
    """The fleet with its hosts. Raises BadInput: unknown or empty fleet, damaged files, no key, no known_hosts."""
    settings = load_settings(project, name)
    folder = project.inventory(name)
    path = folder / "hosts.yml"
    if not is_there(path):
        raise _without_hosts(name, settings, path)
    found = read_hosts(path)
    if not found:
        raise BadInput(
            f"fleet {name} has no hosts",
            where=str(path),
            next_step=f"controller provision --fleet {name}" if settings.servers else "name its hosts there",
        )
    hosts = [_host(project, name, host) for host in found]
    _check_distinct(hosts, found)
    _check_connection_files(name, hosts, settings)
    return Fleet(name=name, inventory=folder, settings=settings, hosts=hosts)


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
    path = group_vars_of_all(project, name) / "ratchet.yml"
    if not is_there(path):
        return FleetSettings()
    document = read_yaml(path)
    value = document.value
    if value is None:
        return FleetSettings()
    if not isinstance(value, dict) or set(value) != {"ratchet"}:
        extra = next((key for key in value if key != "ratchet"), None) if isinstance(value, dict) else None
        raise BadInput(
            "must hold exactly one field, `ratchet`" + (f", found `{extra}`" if extra is not None else ""),
            where=document.where(() if extra is None else (extra,)),
            next_step="role parameters (nginx_*) belong into nginx.yml beside it",
        )
    return validate(FleetSettings, document, place=("ratchet",))


def _check_settings(project: Project, name: str) -> None:
    """None is skipped without a word: a link that leads nowhere, or a `ratchet:` elsewhere. Raises BadInput."""
    folder = group_vars_of_all(project, name)
    settings = [path for path in sorted(folder.iterdir()) if path.name[:1] != "."] if folder.is_dir() else []
    for path in (project.inventory(name) / "hosts.yml", project.known_hosts(name), *settings):
        is_there(path)
    for path in settings:
        if path.name != "ratchet.yml" and path.suffix in {"", ".yml", ".yaml"} and path.is_file():
            found = re.search("^ratchet *:", read_text(path), re.MULTILINE)
            if found:
                raise BadInput(
                    "`ratchet` is not read here",
                    where=f"{path}:{found.string.count(chr(10), 0, found.start()) + 1}",
                    next_step=f"move it, and what is under it, to {folder / 'ratchet.yml'}",
                )


def _without_hosts(name: str, settings: FleetSettings, path: Path) -> BadInput:
    if settings.servers is not None:
        return BadInput(
            f"fleet {name} has not been provisioned yet",
            where=str(path),
            next_step=f"controller provision --fleet {name}",
        )
    return BadInput(
        f"fleet {name} has no hosts: neither hosts.yml nor `servers` in its ratchet.yml",
        where=str(path),
        next_step="write hosts.yml (all: hosts: NAME: ansible_host: ADDRESS), or settings for servers",
    )


def _host(project: Project, fleet: str, host: InventoryHost) -> Host:
    key = _text(host, "ansible_ssh_private_key_file", _text(host, "ansible_private_key_file", ""))
    return Host(
        name=host.name,
        address=_address(host),
        port=_port(host),
        admin_user=_text(host, "ansible_user", "ratchet"),
        # A relative path counts from the project folder: that is where ansible-playbook is started.
        key_file=project.root / _home(host, key) if key else project.key_file(fleet),
        known_hosts=project.known_hosts(fleet),
    )


def _home(host: InventoryHost, key: str) -> Path:
    try:
        return Path(key).expanduser()
    except RuntimeError:
        raise _refuse(host, "ansible_ssh_private_key_file", f"is in the home of nobody: {key}") from None


def _text(host: InventoryHost, variable: str, default: str) -> str:
    value: Any = host.variables.get(variable, default)
    if not isinstance(value, str) or "{{" in value or (not value and default):
        raise _refuse(host, variable, "must be plain text: the controller evaluates no templates in it")
    if any(ord(character) < 32 for character in value):
        raise _refuse(host, variable, "holds a control character")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _refuse(host, variable, "holds half a character")
    return value


def _address(host: InventoryHost) -> str:
    address = _text(host, "ansible_host", host.name)
    try:
        address.encode("idna")
    except UnicodeError:
        raise _refuse(host, "ansible_host", f"is neither an address nor a name that DNS can have: {address}") from None
    return address


def _port(host: InventoryHost) -> int:
    value: Any = host.variables.get("ansible_port", 22)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAXIMUM_PORT:
        raise _refuse(host, "ansible_port", f"must be a port, 1 to {MAXIMUM_PORT}")
    return value


def _refuse(host: InventoryHost, variable: str, what: str) -> BadInput:
    return BadInput(
        f"`{variable}` of host {host.name} {what}", where=host.where, next_step="mend it, then run the command again"
    )


def _check_distinct(hosts: list[Host], found: list[InventoryHost]) -> None:
    """A server with two names would be measured against itself, under two leases."""
    names: dict[tuple[str, int], str] = {}
    for host, entry in zip(hosts, found, strict=True):
        other = names.setdefault((host.address.lower(), host.port), host.name)
        if other != host.name:
            raise BadInput(
                f"{other} and {host.name} are one server: both are {host.address}, port {host.port}",
                where=entry.where,
                next_step="leave one of them out, or mend its ansible_host or ansible_port",
            )


def _check_connection_files(fleet: str, hosts: list[Host], settings: FleetSettings) -> None:
    again = f"controller provision --fleet {fleet}" if settings.servers else ""
    for path in sorted({host.key_file for host in hosts}):
        if not is_there(path) or not path.is_file():
            raise BadInput(
                f"the SSH key of fleet {fleet} is missing",
                where=str(path),
                next_step=again
                or f"ssh-keygen -t ed25519 -N '' -f {path}, and authorise its .pub for user ratchet on the hosts "
                "(or set ansible_ssh_private_key_file in hosts.yml)",
            )
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadInput(
                "the SSH key is readable by others: ssh refuses such a key",
                where=str(path),
                next_step=f"chmod 600 {path}",
            )
    known_hosts = hosts[0].known_hosts
    if not is_there(known_hosts):
        raise BadInput(
            f"fleet {fleet} has no known_hosts: no host key is trusted",
            where=str(known_hosts),
            next_step=again
            or "write one line a host, `ADDRESS ssh-ed25519 AAAA...`, with the key that its console shows: "
            "cat /etc/ssh/ssh_host_ed25519_key.pub",
        )
    read_known_hosts(known_hosts)
