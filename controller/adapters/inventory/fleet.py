"""Load a fleet: its settings, its hosts as Ansible would reach them, and the files that a connection to them needs."""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from controller.adapters.ansible.environment import ansible_environment
from controller.adapters.files.documents import is_there
from controller.adapters.files.fleet import load_settings
from controller.adapters.files.hosts_file import where_set
from controller.adapters.files.known_hosts import read_known_hosts
from controller.adapters.inventory.connection import UnfitVariable, connection
from controller.adapters.inventory.reading import Inventory, read_inventory
from controller.adapters.inventory.templates import Variables
from controller.model.errors import BadInput
from controller.model.fleet import Fleet, FleetSettings, Host
from controller.model.project import Project

# Ansible's own name rule is wider; these are the names that are safe in file names and on a command line.
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
CLIENTS_AT_ONCE = 8


def load_fleet(project: Project, name: str) -> Fleet:
    """The fleet with its hosts: all that its inventory names, in whichever group.

    Raises BadInput: unknown or empty fleet, what Ansible cannot read, what the controller's SSH cannot follow, no
    key, no known_hosts.
    """
    settings = load_settings(project, name)
    inventory = read_inventory(project, name)
    if not inventory.hosts:
        raise _without_hosts(name, settings, inventory)
    for host in inventory.hosts:
        if not HOST_NAME.fullmatch(host):
            raise BadInput(
                f"a host name holds letters, digits, . - _ only, not {host[:60]!r}",
                where=where_set(inventory.folder, host, ""),
                next_step="rename it, and give it its address as ansible_host",
            )
    environment = ansible_environment(project)
    with ThreadPoolExecutor(max_workers=CLIENTS_AT_ONCE) as pool:
        hosts = list(pool.map(lambda host: _host(project, name, inventory, host, environment), inventory.hosts))
    _check_distinct(hosts, inventory.folder)
    _check_connection_files(name, hosts, settings)
    return Fleet(name=name, inventory=inventory.folder, settings=settings, hosts=hosts)


def _without_hosts(name: str, settings: FleetSettings, inventory: Inventory) -> BadInput:
    path = inventory.folder / "hosts.yml"
    if inventory.sources:
        said = f"; Ansible says: {inventory.warnings}" if inventory.warnings else ""
        return BadInput(
            f"fleet {name} has no hosts{said}",
            where=str(inventory.sources[0] if len(inventory.sources) == 1 else inventory.folder),
            next_step=f"controller provision --fleet {name}"
            if settings.servers
            else "name its hosts there (all: hosts: NAME: ansible_host: ADDRESS)",
        )
    if settings.servers is not None:
        return BadInput(
            f"fleet {name} has not been provisioned yet",
            where=str(path),
            next_step=f"controller provision --fleet {name}",
        )
    return BadInput(
        f"fleet {name} has no hosts: neither hosts.yml, another inventory, nor `servers` in its ratchet.yml",
        where=str(path),
        next_step="write hosts.yml (all: hosts: NAME: ansible_host: ADDRESS), or settings for servers",
    )


def _host(project: Project, fleet: str, inventory: Inventory, name: str, environment: dict[str, str]) -> Host:
    try:
        route, key = connection(project, name, Variables(inventory, name, environment), environment)
        # A relative path counts from the project folder: that is where ansible-playbook is started.
        key_file = project.root / _home(key) if key else project.key_file(fleet)
    except UnfitVariable as error:
        raise BadInput(
            f"`{error.variable}` of host {name} {error.why}",
            where=where_set(inventory.folder, name, error.variable),
            next_step="mend it, then run the command again",
        ) from None
    return Host(
        name=name,
        address=route.address,
        port=route.port,
        admin_user=route.user,
        key_file=key_file,
        known_hosts=project.known_hosts(fleet),
        known_as=route.known_as,
        proxy=route.proxy,
    )


def _home(key: str) -> Path:
    try:
        return Path(key).expanduser()
    except RuntimeError:
        raise UnfitVariable("ansible_ssh_private_key_file", f"is in the home of nobody: {key}") from None


def _check_distinct(hosts: list[Host], folder: Path) -> None:
    """A server with two names would be measured against itself, under two leases."""
    names: dict[tuple[str, int, str], str] = {}
    for host in hosts:
        # Behind another jump host the same address may be another machine.
        other = names.setdefault((host.address.lower(), host.port, host.proxy), host.name)
        if other != host.name:
            raise BadInput(
                f"{other} and {host.name} are one server: both are {host.address}, port {host.port}",
                where=where_set(folder, host.name, "ansible_host"),
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
                or f"ssh-keygen -t ed25519 -N '' -f {path}, and authorise its .pub for user {hosts[0].admin_user} on "
                "the hosts (or set ansible_ssh_private_key_file)",
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
