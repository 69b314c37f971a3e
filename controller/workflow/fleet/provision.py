"""Provision a fleet: create what is missing, make it trusted, set it up. A second run changes nothing and says so."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from controller.adapters.ansible import PlaybookResult, run_playbook
from controller.adapters.audit import Accounts
from controller.adapters.files.fleet import load_settings
from controller.adapters.files.hosts_edits import write_hosts, written_hosts
from controller.adapters.files.keys import HostSeeds, ensure_fleet_key
from controller.adapters.files.known_hosts import KnownHosts
from controller.adapters.hetzner import Access, Cloud, CloudServer, RuleChange, is_label, modern, read_access
from controller.adapters.inventory import load_fleet, read_inventory
from controller.model.errors import BadInput, HostFailed, RatchetError
from controller.model.fleet import Placement, Servers
from controller.model.project import Project
from controller.workflow.fleet.bring_up import BringUp, Creation, FleetOrder, Ready
from controller.workflow.fleet.claims import Claims

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
    creation: Creation = ""
    error: RatchetError | None = None

    @property
    def created(self) -> bool:
        return self.creation == "created"


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

    def creations(self) -> dict[str, list[str]]:
        """The servers that were created, and those that were ordered and whose creation was not seen to its end."""
        each: list[Creation] = ["created", "ordered"]
        found = {how: sorted(host.name for host in self.hosts.values() if host.creation == how) for how in each}
        return {how: names for how, names in found.items() if names or how == "created"}

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
    may_close: Callable[[list[str]], bool],
) -> Provisioned:
    """Bring the fleet to what its settings say. The caller holds the fleet, under these names.

    `may_close` is asked before the firewall closes what is open now, `tcp 22 from 192.0.2.0/24` for one.

    A host that fails is in the result; the others are provisioned all the same. Raises BadInput before anything is
    changed, FleetLocked when another run has claimed a host that is to be set up, HostFailed when the cloud fails as a
    whole.
    """
    servers, access = read_servers(project, fleet), read_access(environment)
    names = [f"{fleet}-{number}" for number in range(1, servers.count + 1)]
    provisioning = _Provisioning(
        project,
        fleet,
        servers,
        access,
        observe,
        run_id=run_id,
        holder=holder,
        generation=generation,
        may_close=may_close,
    )
    result = provisioning.result
    with accounts.account("provision", names, "bring the servers to what the settings say") as outcome:
        try:
            provisioning.run()
        finally:
            outcome.hosts = sorted(result.hosts) or names
            outcome.evidence = result.creations()
        outcome.what = "changed" if result.changed else "nothing changed"
        if result.failures:
            outcome.failed("; ".join(f"{name}: {error.what}" for name, error in result.failures.items()))
    return result


def read_servers(project: Project, fleet: str) -> Servers:
    """The fleet's `servers`, checked as far as the API's rules are known here. Raises BadInput."""
    path = project.inventory(fleet) / "group_vars" / "all" / "ratchet.yml"
    servers = load_settings(project, fleet).servers
    if servers is None:
        raise BadInput(
            f"fleet {fleet} is static: its hosts are those of its inventory, and there is nothing to create or delete",
            where=str(path),
            next_step=f"set its hosts up: ansible-playbook -i inventory/{fleet} playbooks/site.yml "
            "(or add `servers` to ratchet.yml)",
        )
    if not re.fullmatch(r"[A-Za-z0-9.-]+", fleet):
        raise BadInput(
            f"servers are named after their fleet, and {fleet}-1 is no host's name",
            where=str(project.inventory(fleet)),
            next_step="rename the folder: letters, digits and dashes",
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
        may_close: Callable[[list[str]], bool],
    ) -> None:
        self._may_close = may_close
        self._run_id = run_id
        self._holder = holder
        self._generation = generation
        self._project = project
        self._fleet = fleet
        self._servers = servers
        self._access = access
        self._observe = observe
        self.result = Provisioned(fleet)
        self._known_hosts = KnownHosts(project.known_hosts(fleet))

    def run(self) -> None:
        cloud = Cloud(self._access)
        # What Ansible cannot read is found out before a server is ordered.
        read_inventory(self._project, self._fleet)
        before = self._read_inventory()
        self._say("asking the cloud what is there")
        existing = cloud.servers(self._fleet)
        names = [f"{self._fleet}-{number}" for number in range(1, self._servers.count + 1)]
        order = self._order(cloud, missing=[name for name in names if name not in existing])
        surplus = sorted(set(existing) - set(names))
        if surplus:
            self._notice(
                f"{', '.join(surplus)}: more servers than `count` says; they stay in the fleet until you delete them"
            )
        others = sorted(set(before) - set(names) - set(surplus))
        if others:
            self._notice(
                f"{', '.join(others)}: in hosts.yml, but no server of this fleet in the cloud; what stands there stays"
            )
        ready = self._bring_up(order, names + surplus, existing)
        self._write_inventory(before, ready)
        if ready:
            self._set_up(sorted(ready))

    def _order(self, cloud: Cloud, missing: list[str]) -> FleetOrder:
        placements = self._placements()
        if missing:
            placements = cloud.orderable(placements)
        public_key, generated = ensure_fleet_key(self._project, self._fleet)
        firewall, opened = cloud.firewall(self._fleet, self._servers.ssh_sources, self._servers.labels, self._agree)
        key, uploaded = cloud.ssh_key(self._fleet, public_key, self._servers.labels)
        self.result.changed |= generated or opened or uploaded
        return FleetOrder(
            project=self._project,
            fleet=self._fleet,
            image=self._servers.image,
            placements=placements,
            labels=self._servers.labels,
            public_key=public_key,
            ssh_key=key,
            firewall=firewall,
            seeds=HostSeeds(self._project, self._fleet),
            known_hosts=self._known_hosts,
        )

    def _agree(self, change: RuleChange) -> None:
        """Raises BadInput unless what the firewall closes may be closed."""
        if change.closes and not self._may_close(change.closes):
            raise BadInput("not confirmed: no rule of the firewall was changed")
        told = {"keeps the rules that others have made": change.kept, "opens": change.opens, "closes": change.closes}
        for what, rules in told.items():
            if rules:
                self._notice(f"the firewall {self._fleet} {what}: {'; '.join(rules)}")

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
                self.result.changed |= groups.placement_group(self._fleet, index, order.labels)[1]
        self.result.hosts.update({name: HostOutcome(name) for name in names})
        with ThreadPoolExecutor(max_workers=min(HOSTS_AT_ONCE, len(names))) as pool:
            futures: dict[str, Future[Ready]] = {
                name: pool.submit(self._one, order, name, index, existing.get(name)) for index, name in enumerate(names)
            }
            try:
                for name, future in futures.items():
                    outcome = self.result.hosts[name]
                    try:
                        one = future.result()
                    except RatchetError as error:
                        outcome.error = error
                        self.result.changed |= outcome.created
                        continue
                    ready[name] = one.server
                    outcome.address = one.server.address
                    outcome.type, outcome.location = one.server.type, one.server.location
                    self.result.changed |= one.changed
            except BaseException:
                order.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return ready

    def _one(self, order: FleetOrder, name: str, index: int, server: CloudServer | None) -> Ready:
        def say(text: str) -> None:
            self._observe(Progress(text, host=name))

        def note(creation: Creation) -> None:
            self.result.hosts[name].creation = creation

        try:
            cloud = Cloud(self._access, sleep=order.sleep)
            ready = BringUp(order, cloud, name, index, say=say, note=note).run(server)
        except RatchetError as error:
            self._observe(Progress(error.what, host=name, state="failed"))
            raise
        self._observe(Progress(f"booted, at {ready.server.address}", host=name))
        return ready

    def _read_inventory(self) -> dict[str, str]:
        """Host -> address, as hosts.yml says now. Raises BadInput."""
        return written_hosts(self._project.inventory(self._fleet) / "hosts.yml")

    def _write_inventory(self, before: dict[str, str], ready: dict[str, CloudServer]) -> None:
        """The ready hosts beside what stands there; the addresses that they had before are forgotten."""
        addresses = {name: ready[name].address for name in self.result.hosts if name in ready}
        if addresses:
            path = self._project.inventory(self._fleet) / "hosts.yml"
            self.result.changed |= write_hosts(path, self._fleet, addresses, self._notice)
            left = {before[name] for name in addresses if name in before} - set((before | addresses).values())
            self.result.changed |= self._known_hosts.forget(left)

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
        self.result.changed |= result.changed
        by_hand = f"by hand: ansible-playbook -i inventory/{self._fleet} playbooks/site.yml --limit "
        for name in names:
            outcome = result.hosts.get(name)
            if outcome is None or outcome.status != "ok":
                why = f"{outcome.task}: {outcome.message}" if outcome else "ansible never reached it"
                error = HostFailed(f"setting it up failed: {why}", where=name, next_step=by_hand + name)
                self.result.hosts[name].error = error
                self._observe(Progress(error.what, host=name, state="failed"))
            else:
                self._observe(Progress("ready", host=name, state="ready"))
        if result.rc != 0 and not self.result.failures:
            result.raise_for_failures()

    def _say(self, text: str) -> None:
        self._observe(Progress(text))

    def _notice(self, text: str) -> None:
        self.result.notices.append(text)
        self._observe(Progress(f"note: {text}"))
