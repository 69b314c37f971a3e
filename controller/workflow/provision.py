"""Provision a fleet: create what is missing, make it trusted, set it up. A second run changes nothing and says so."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from controller.adapters.ansible import PlaybookResult, run_playbook
from controller.adapters.audit import Accounts
from controller.adapters.files.fleet import load_fleet, load_settings
from controller.adapters.files.hosts_file import read_hosts, write_hosts
from controller.adapters.files.keys import HostSeeds, ensure_fleet_key
from controller.adapters.files.known_hosts import KnownHosts
from controller.adapters.hetzner import Access, Cloud, CloudServer, is_label, modern, read_access
from controller.model.errors import BadInput, HostFailed, RatchetError
from controller.model.fleet import Placement, Servers
from controller.model.project import Project
from controller.workflow.bring_up import BringUp, FleetOrder, Ready
from controller.workflow.claims import Claims

# Each waits most of the time; more only queues at the API.
HOSTS_AT_ONCE = 16
SETUP_SECONDS = 1800.0


@dataclass(frozen=True)
class Progress:
    """A host's step in words; no host: the fleet's. `state` of a host ends in ready or failed."""

    text: str
    host: str = ""
    state: str = "working"


Observer = Callable[[Progress], None]


@dataclass
class HostOutcome:
    """What became of one host."""

    name: str
    address: str = ""
    type: str = ""
    location: str = ""
    created: bool = False
    error: RatchetError | None = None


@dataclass
class Provisioned:
    """What became of the fleet."""

    fleet: str
    changed: bool = False
    hosts: dict[str, HostOutcome] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def failures(self) -> dict[str, RatchetError]:
        return {name: host.error for name, host in self.hosts.items() if host.error is not None}

    def document(self) -> dict[str, Any]:
        """The document of `--output json`."""
        return {
            "fleet": self.fleet,
            "changed": self.changed,
            "notices": self.notices,
            "hosts": [
                {
                    "name": host.name,
                    "address": host.address,
                    "type": host.type,
                    "location": host.location,
                    "created": host.created,
                    "state": "failed" if host.error else "ready",
                    "message": str(host.error) if host.error else "",
                }
                for host in self.hosts.values()
            ],
        }


def provision(
    project: Project,
    fleet: str,
    environment: Mapping[str, str],
    observe: Observer,
    *,
    run_id: str,
    holder: str,
    generation: int = 0,
    accounts: Accounts,
) -> Provisioned:
    """Bring the fleet to what its settings say. The caller holds the fleet, under these names.

    A host that fails is in the result; the others are provisioned all the same. Raises BadInput before anything is
    changed, FleetLocked when another run has claimed a host that is to be set up, HostFailed when the cloud fails as a
    whole.
    """
    servers, access = read_servers(project, fleet), read_access(environment)
    names = [f"{fleet}-{number}" for number in range(1, servers.count + 1)]
    with accounts.account("provision", names, "bring the servers to what the settings say") as outcome:
        result = _Provisioning(
            project, fleet, servers, access, observe, run_id=run_id, holder=holder, generation=generation
        ).run()
        outcome.hosts = sorted(result.hosts)
        outcome.what = "changed" if result.changed else "nothing changed"
        outcome.evidence = {"created": sorted(host.name for host in result.hosts.values() if host.created)}
        if result.failures:
            outcome.failed("; ".join(f"{name}: {error.what}" for name, error in result.failures.items()))
    return result


def read_servers(project: Project, fleet: str) -> Servers:
    """The fleet's `servers`, checked as far as the API's rules are known here. Raises BadInput."""
    path = project.inventory(fleet) / "group_vars" / "all" / "ratchet.yml"
    servers = load_settings(project, fleet).servers
    if servers is None:
        raise BadInput(
            f"fleet {fleet} is static: its hosts are those of hosts.yml, and there is nothing to create or delete",
            where=str(path),
            next_step=f"set its hosts up: ansible-playbook -i inventory/{fleet} playbooks/site.yml "
            "(or add `servers` to ratchet.yml)",
        )
    for label, value in servers.labels.items():
        if not is_label(label, value):
            raise BadInput(
                f"`servers.labels`: {label}={value} is not a label",
                where=str(path),
                next_step="letters, digits, dot, dash and _, at most 63, beginning and ending with a letter or digit",
            )
    for network in servers.ssh_sources:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise BadInput(
                f"`servers.ssh_sources`: {error}", where=str(path), next_step="a network looks like 192.0.2.0/24"
            ) from None
    return servers


class _Provisioning:
    def __init__(
        self,
        project: Project,
        fleet: str,
        servers: Servers,
        access: Access,
        observe: Observer,
        *,
        run_id: str,
        holder: str,
        generation: int,
    ) -> None:
        self._run_id = run_id
        self._holder = holder
        self._generation = generation
        self._project = project
        self._fleet = fleet
        self._servers = servers
        self._access = access
        self._observe = observe
        self._result = Provisioned(fleet)
        self._known_hosts = KnownHosts(project.known_hosts(fleet))

    def run(self) -> Provisioned:
        cloud = Cloud(self._access)
        self._say("asking the cloud what is there")
        existing = cloud.servers(self._fleet)
        names = [f"{self._fleet}-{number}" for number in range(1, self._servers.count + 1)]
        order = self._order(cloud, missing=[name for name in names if name not in existing])
        surplus = sorted(set(existing) - set(names))
        if surplus:
            self._notice(
                f"{', '.join(surplus)}: more servers than `count` says; they stay in the fleet until you delete them"
            )
        ready = self._bring_up(order, names + surplus, existing)
        self._write_inventory(ready)
        if ready:
            self._set_up(sorted(ready))
        return self._result

    def _order(self, cloud: Cloud, missing: list[str]) -> FleetOrder:
        placements = self._placements()
        if missing:
            placements = cloud.orderable(placements)
        public_key, generated = ensure_fleet_key(self._project, self._fleet)
        shared = cloud.prepare(
            self._fleet,
            public_key=public_key,
            ssh_sources=self._servers.ssh_sources,
            labels=self._servers.labels,
        )
        self._result.changed |= generated or shared.changed
        return FleetOrder(
            project=self._project,
            fleet=self._fleet,
            image=self._servers.image,
            placements=placements,
            labels=self._servers.labels,
            public_key=public_key,
            ssh_key=shared.ssh_key,
            firewall=shared.firewall,
            seeds=HostSeeds(self._project, self._fleet),
            known_hosts=self._known_hosts,
        )

    def _placements(self) -> list[Placement]:
        found: list[Placement] = []
        for placement in self._servers.prefer:
            new = modern(placement)
            if new.type != placement.type:
                self._notice(f"{placement.type} is no longer sold: taking its successor {new.type}")
            if new not in found:
                found.append(new)
        return found

    def _bring_up(
        self, order: FleetOrder, names: list[str], existing: dict[str, CloudServer]
    ) -> dict[str, CloudServer]:
        """All hosts at once; returns those that are ready."""
        # Placement groups are shared by neighbours: created here, so that no two threads create the same one.
        ready: dict[str, CloudServer] = {}
        groups = Cloud(self._access)
        for index in range(0, len(names), 10):
            if any(name not in existing for name in names[index : index + 10]):
                self._result.changed |= groups.placement_group(self._fleet, index, order.labels)[1]
        with ThreadPoolExecutor(max_workers=min(HOSTS_AT_ONCE, len(names))) as pool:
            futures: dict[str, Future[Ready]] = {
                name: pool.submit(self._one, order, name, index, existing.get(name)) for index, name in enumerate(names)
            }
            try:
                for name, future in futures.items():
                    outcome = self._result.hosts[name] = HostOutcome(name)
                    try:
                        one = future.result()
                    except RatchetError as error:
                        outcome.error = error
                        continue
                    ready[name] = one.server
                    outcome.address, outcome.created = one.server.address, one.created
                    outcome.type, outcome.location = one.server.type, one.server.location
                    self._result.changed |= one.changed
            except BaseException:
                order.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return ready

    def _one(self, order: FleetOrder, name: str, index: int, server: CloudServer | None) -> Ready:
        def say(text: str) -> None:
            self._observe(Progress(text, host=name))

        try:
            ready = BringUp(order, Cloud(self._access, sleep=order.sleep), name, index, say).run(server)
        except RatchetError as error:
            self._observe(Progress(error.what, host=name, state="failed"))
            raise
        self._observe(Progress(f"booted, at {ready.server.address}", host=name))
        return ready

    def _write_inventory(self, ready: dict[str, CloudServer]) -> None:
        """The ready hosts, and those of before that did not answer this time."""
        path = self._project.inventory(self._fleet) / "hosts.yml"
        before = (
            {host.name: str(host.variables.get("ansible_host", "")) for host in read_hosts(path)}
            if path.exists()
            else {}
        )
        addresses = {
            name: ready[name].address if name in ready else before[name]
            for name in self._result.hosts
            if name in ready or name in before
        }
        if addresses:
            self._result.changed |= write_hosts(path, self._fleet, addresses)
            if len(ready) == len(self._result.hosts):
                self._result.changed |= self._known_hosts.keep_only(set(addresses.values()))

    def _set_up(self, names: list[str]) -> None:
        self._say(f"setting up {', '.join(names)}")
        cancel = threading.Event()

        def lost(why: str) -> None:
            self._notice(f"{why}; stopping")
            cancel.set()

        hosts = [host for host in load_fleet(self._project, self._fleet).hosts if host.name in names]
        # A new host has no program to claim it with, and nobody to be kept from it.
        claims = Claims(
            hosts,
            fleet=self._fleet,
            run_id=self._run_id,
            generation=self._generation,
            holder=self._holder,
            lost=lost,
        )
        try:
            with claims.held():
                result = run_playbook(
                    self._project,
                    self._fleet,
                    "site.yml",
                    limit=names,
                    extra_vars=claims.variables if claims.everywhere else None,
                    timeout=SETUP_SECONDS,
                    cancel=cancel,
                    on_task=lambda task: self._say(f"setting up: {task}"),
                )
                late = claims.refused(result.failures())
                if late:
                    raise late
        except BaseException:
            cancel.set()
            raise
        self._judge_setup(result, names)

    def _judge_setup(self, result: PlaybookResult, names: list[str]) -> None:
        self._result.changed |= result.changed
        by_hand = f"by hand: ansible-playbook -i inventory/{self._fleet} playbooks/site.yml --limit "
        for name in names:
            outcome = result.hosts.get(name)
            if outcome is None or outcome.status != "ok":
                why = f"{outcome.task}: {outcome.message}" if outcome else "ansible never reached it"
                error = HostFailed(f"setting it up failed: {why}", where=name, next_step=by_hand + name)
                self._result.hosts[name].error = error
                self._observe(Progress(error.what, host=name, state="failed"))
            else:
                self._observe(Progress("ready", host=name, state="ready"))
        if result.rc != 0 and not self._result.failures:
            result.raise_for_failures()

    def _say(self, text: str) -> None:
        self._observe(Progress(text))

    def _notice(self, text: str) -> None:
        self._result.notices.append(text)
        self._observe(Progress(f"note: {text}"))
