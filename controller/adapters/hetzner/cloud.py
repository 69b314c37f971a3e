"""The few things provisioning does with the cloud; each may be repeated and then changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from hcloud import Client
from hcloud.actions import ActionFailedException, BoundAction
from hcloud.firewalls import Firewall, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.placement_groups import PlacementGroup
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer, Server
from hcloud.ssh_keys import SSHKey

from controller import __version__
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.hetzner.access import Access
from controller.adapters.hetzner.calls import call, classify
from controller.adapters.hetzner.domain import (
    FLEET_LABEL,
    CloudServer,
    Leftovers,
    ServerOrder,
    SharedResources,
    Unavailable,
    selector,
)
from controller.adapters.secrets import masked
from controller.model.errors import BadInput, HostFailed, RatchetError
from controller.model.fleet import Placement

HTTP_SECONDS = (5.0, 30.0)
ACTION_SECONDS = 300.0
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 8.0
ANYWHERE = ["0.0.0.0/0", "::/0"]
# The cloud spreads at most so many servers of one group over its machines.
SPREAD_SIZE = 10


class Cloud:
    """One project of the cloud. Not for use by several threads at once; it is cheap: give each its own."""

    def __init__(
        self,
        access: Access,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = Client(
            token=access.token,
            api_endpoint=access.endpoint,
            application_name="ratchet",
            application_version=__version__,
            timeout=HTTP_SECONDS,  # one attempt's (connect, read)
        )
        self._token = access.token
        self._sleep = sleep
        self._clock = clock

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        try:
            return call(what, function, sleep=self._sleep)
        except RatchetError as error:
            raise self._hiding_token(error) from None

    def _hiding_token(self, error: RatchetError) -> RatchetError:
        """The same error; an API, or a proxy before it, may have quoted what it was sent."""
        error.what = masked(error.what, self._token)
        error.args = (error.what,)
        return error

    def servers(self, fleet: str) -> dict[str, CloudServer]:
        """Name -> server, for the servers with the fleet's label."""
        found = self._call("listing servers", lambda: self._client.servers.get_all(label_selector=selector(fleet)))
        return {server.name: server for server in (_server(bound) for bound in found)}

    def orderable(self, wanted: Sequence[Placement]) -> list[Placement]:
        """Those of `wanted` that the API has in stock, in the same order.

        Raises BadInput for a type that the API does not know, HostFailed when none is in stock.
        """
        types = self._call("listing server types", self._client.server_types.get_all)
        known: dict[str, dict[str, bool]] = {}
        for bound in types:
            model = bound.data_model
            known[str(model.name)] = {
                str(one.location.data_model.name): one.available is not False for one in model.locations or []
            }
        for placement in wanted:
            if placement.type not in known:
                raise BadInput(
                    f"unknown server type {placement.type}",
                    where="`servers.prefer` in ratchet.yml",
                    next_step=did_you_mean(placement.type, known, what="server type"),
                )
        # An API that tells no locations lets every order speak for itself.
        stock = [one for one in wanted if not known[one.type] or known[one.type].get(one.location)]
        if not stock:
            tried = ", ".join(f"{one.type} in {one.location}" for one in wanted)
            raise HostFailed(
                f"none of the preferred servers can be had now: {tried}",
                next_step="add another type or location to `prefer` in ratchet.yml, or try later",
            )
        return stock

    def prepare(
        self, fleet: str, *, public_key: str, ssh_sources: list[str], labels: dict[str, str]
    ) -> SharedResources:
        """Create or correct what the servers share: the SSH key and the firewall."""
        own = labels | {FLEET_LABEL: fleet}
        key, key_changed = self._ssh_key(fleet, public_key, own)
        firewall, firewall_changed = self._firewall(fleet, ssh_sources, own)
        return SharedResources(ssh_key=key, firewall=firewall, changed=key_changed or firewall_changed)

    def _ssh_key(self, fleet: str, public_key: str, labels: dict[str, str]) -> tuple[int, bool]:
        keys = self._client.ssh_keys
        wanted = " ".join(public_key.split()[:2])
        for bound in self._call("listing SSH keys", keys.get_all):
            model = bound.data_model
            if " ".join(str(model.public_key).split()[:2]) == wanted:
                return int(model.id), False
            if model.name == fleet:
                # The fleet's key was made anew on this machine.
                self._own(model.labels, fleet, f"the SSH key {fleet}")
                self._call("deleting the fleet's old SSH key", bound.delete)
        created = self._call(
            "creating the SSH key", lambda: keys.create(name=fleet, public_key=public_key, labels=labels)
        )
        return int(created.data_model.id), True

    def _firewall(self, fleet: str, ssh_sources: list[str], labels: dict[str, str]) -> tuple[int, bool]:
        firewalls = self._client.firewalls
        rules = firewall_rules(ssh_sources)
        bound = self._call("looking for the firewall", lambda: firewalls.get_by_name(fleet))
        if bound is None:
            # The SDK's annotation of labels is wrong.
            created = self._call(
                "creating the firewall", partial(firewalls.create, name=fleet, rules=rules, labels=cast(Any, labels))
            )
            return int(created.firewall.data_model.id), True
        model = bound.data_model
        self._own(model.labels, fleet, f"the firewall {fleet}")
        if {_rule(rule) for rule in model.rules or []} == {_rule(rule) for rule in rules}:
            return int(model.id), False
        self.wait("changing the firewall", self._call("changing the firewall", lambda: bound.set_rules(rules)))
        return int(model.id), True

    def placement_group(self, fleet: str, index: int, labels: dict[str, str]) -> tuple[int, bool]:
        """The group that spreads the fleet's `index`-th server (from 0) and its neighbours; (id, created)."""
        groups, name = self._client.placement_groups, f"{fleet}-{index // SPREAD_SIZE + 1}"
        bound = self._call("looking for the placement group", lambda: groups.get_by_name(name))
        if bound is not None:
            self._own(bound.data_model.labels, fleet, f"the placement group {name}")
            return int(bound.data_model.id), False
        created = self._call(
            "creating the placement group",
            lambda: groups.create(name=name, type="spread", labels=labels | {FLEET_LABEL: fleet}),
        )
        return int(created.placement_group.data_model.id), True

    def create_server(self, order: ServerOrder) -> CloudServer:
        """Create a server and wait until it runs. One that is there already, from a broken-off attempt, is taken.

        Raises Unavailable when this type is out of stock in this location; nothing is left behind then.
        """
        what = f"creating {order.name}"
        servers = self._client.servers

        def create() -> tuple[BoundServer, list[BoundAction]]:
            # Asked anew in each attempt: an attempt whose answer was lost may have created it.
            existing = servers.get_by_name(order.name)
            if existing is not None:
                self._own(existing.data_model.labels, order.labels[FLEET_LABEL], f"the server {order.name}")
                return existing, []
            created = servers.create(
                name=order.name,
                server_type=ServerType(name=order.placement.type),
                image=Image(name=order.image),
                location=Location(name=order.placement.location),
                ssh_keys=[SSHKey(id=order.ssh_key)],
                firewalls=[Firewall(id=order.firewall)],
                placement_group=PlacementGroup(id=order.placement_group),
                user_data=order.user_data,
                labels=order.labels,
            )
            return created.server, [created.action, *created.next_actions]

        server, actions = self._call(what, create)
        try:
            self.wait(what, actions)
        except Unavailable:
            self._discard(server)
            raise
        return _server(self._call(what, partial(servers.get_by_id, server.data_model.id)))

    def _discard(self, server: BoundServer) -> None:
        """A server whose creation failed would hold its name."""
        self.wait("deleting the failed server", [self._call("deleting the failed server", server.delete)])

    def power_on(self, server: CloudServer) -> None:
        """Start a server that is off."""
        what = f"starting {server.name}"
        self.wait(what, [self._call(what, lambda: self._client.servers.power_on(Server(id=server.id)))])

    def set_labels(self, server: CloudServer, labels: dict[str, str]) -> None:
        """Replace the labels of a server."""
        what = f"labelling {server.name}"
        self._call(what, lambda: self._client.servers.update(Server(id=server.id), labels=labels))

    def wait(self, what: str, actions: Sequence[BoundAction | None], *, seconds: float = ACTION_SECONDS) -> None:
        """Wait for every action, polling ever more slowly. Raises HostFailed when one fails or takes too long."""
        deadline = self._clock() + seconds
        for action in (action for action in actions if action is not None):
            pause, current = FIRST_POLL_SECONDS, action.data_model
            while current.status == "running":
                if self._clock() > deadline:
                    raise HostFailed(
                        f"{what}: still not done after {seconds:.0f} s",
                        next_step="look at the server in the cloud console, then run the command again",
                    )
                self._sleep(pause)
                pause = min(pause * 2, LONGEST_POLL_SECONDS)
                current = self._call(what, partial(self._client.actions.get_by_id, current.id)).data_model
            if current.status == "error":
                raise self._hiding_token(classify(what, ActionFailedException(action=current)))

    def leftovers(self, fleet: str) -> Leftovers:
        """Everything with the fleet's label."""
        return Leftovers(*([str(one.data_model.name) for one in found] for found in self._labelled(fleet).values()))

    def destroy_server(self, fleet: str, name: str) -> None:
        """Delete one server of the fleet and wait until it is gone; one that is gone already is fine."""
        for bound in self._labelled(fleet)["servers"]:
            if bound.data_model.name == name:
                what = f"deleting {name}"
                self.wait(what, [self._call(what, bound.delete)])

    def destroy_shared(self, fleet: str) -> None:
        """Delete what the servers shared, once they are gone."""
        labelled = self._labelled(fleet)
        for kind in ("firewalls", "placement_groups", "ssh_keys"):
            for bound in labelled[kind]:
                self._call(f"deleting {kind.replace('_', ' ')}: {bound.data_model.name}", bound.delete)

    def _labelled(self, fleet: str) -> dict[str, list[Any]]:
        """Kind -> SDK objects, in the order of Leftovers."""
        clients: dict[str, Any] = {
            "servers": self._client.servers,
            "firewalls": self._client.firewalls,
            "placement_groups": self._client.placement_groups,
            "ssh_keys": self._client.ssh_keys,
        }
        return {
            kind: self._call(f"listing {kind}", partial(client.get_all, label_selector=selector(fleet)))
            for kind, client in clients.items()
        }

    def _own(self, labels: dict[str, str] | None, fleet: str, what: str) -> None:
        """Names are unique in a project: never touch what only happens to have ours."""
        if (labels or {}).get(FLEET_LABEL) != fleet:
            raise BadInput(
                f"{what} exists in the project, but is not this fleet's (it lacks the label {FLEET_LABEL}={fleet})",
                next_step="rename or delete it, or give the fleet another name",
            )


def firewall_rules(ssh_sources: list[str]) -> list[FirewallRule]:
    """SSH from the given networks; web, dashboard and ping from everywhere."""
    ports = [("22", "SSH", ssh_sources), ("80", "HTTP", ANYWHERE), ("443", "HTTPS", ANYWHERE)]
    ports.append(("8088", "dashboard", ANYWHERE))
    rules = [
        FirewallRule(direction="in", protocol="tcp", port=port, source_ips=sources, description=text)
        for port, text, sources in ports
    ]
    return [*rules, FirewallRule(direction="in", protocol="icmp", source_ips=ANYWHERE, description="ping")]


def _rule(rule: FirewallRule) -> tuple[str, ...]:
    return (rule.direction, rule.protocol, rule.port or "", *sorted(rule.source_ips))


def _server(bound: BoundServer) -> CloudServer:
    model = bound.data_model
    network = model.public_net
    address = network.ipv4.ip if network is not None and network.ipv4 is not None else ""
    return CloudServer(
        id=int(model.id or 0),
        name=str(model.name),
        status=str(model.status),
        address=str(address),
        type=str(model.server_type.data_model.name) if model.server_type else "",
        location=str(model.location.data_model.name) if model.location else "",
        labels=dict(model.labels or {}),
    )
