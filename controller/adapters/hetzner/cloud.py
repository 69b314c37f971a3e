"""The few things provisioning does with the cloud; each may be repeated and then changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from hcloud import APIException, Client
from hcloud.actions import ActionFailedException, BoundAction
from hcloud.firewalls import Firewall
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.placement_groups import PlacementGroup
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer, Server
from hcloud.ssh_keys import SSHKey

from controller import __version__
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.hetzner.access import Access
from controller.adapters.hetzner.calls import call, classify, log_answers
from controller.adapters.hetzner.domain import (
    FLEET_LABEL,
    CloudServer,
    Found,
    Leftovers,
    ServerOrder,
    Unavailable,
    selector,
)
from controller.adapters.hetzner.firewall import RuleChange, firewall_rules, rule_change
from controller.adapters.secrets import masked
from controller.model.errors import BadInput, HostFailed, RatchetError
from controller.model.fleet import Placement

HTTP_SECONDS = (5.0, 30.0)
ACTION_SECONDS = 300.0
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 8.0
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
        log_answers(self._client)
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
        servers = self._client.servers
        found: list[CloudServer] = self._call(
            "listing servers", lambda: [_server(bound) for bound in servers.get_all(label_selector=selector(fleet))]
        )
        return {server.name: server for server in found}

    def orderable(self, wanted: Sequence[Placement]) -> list[Placement]:
        """Those of `wanted` that the API has in stock, in the same order.

        Raises BadInput for a type that the API does not know, HostFailed when none is in stock.
        """
        known: dict[str, dict[str, bool]] = self._call(
            "listing server types", lambda: dict(map(_stock, self._client.server_types.get_all()))
        )
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

    def ssh_key(self, fleet: str, public_key: str, labels: dict[str, str]) -> tuple[int, bool]:
        """The project's copy of the fleet's public key, whatever its name; (id, changed)."""
        keys = self._client.ssh_keys
        wanted = public_key.split()[:2]

        def find() -> Any:
            fits = (one for one in keys.get_all() if str(one.data_model.public_key).split()[:2] == wanted)
            return next(fits, None)

        def create() -> Any:
            old = keys.get_by_name(fleet)
            if old is not None:
                # The fleet's key was made anew on this machine.
                self._own(old.data_model.labels, fleet, f"the SSH key {fleet}")
                self._gone(old.delete)
            return keys.create(name=fleet, public_key=public_key, labels=labels | {FLEET_LABEL: fleet})

        return self._obtain(f"creating the SSH key {fleet}", find, create)

    def firewall(
        self, fleet: str, ssh_sources: list[str], labels: dict[str, str], agree: Callable[[RuleChange], None]
    ) -> tuple[int, bool]:
        """The fleet's firewall with our rules as the settings say; (id, changed).

        Args:
            agree: told what becomes of the rules of a firewall that is there, before anything is changed; raises to
                refuse.
        """
        firewalls = self._client.firewalls
        identity, created = self._obtain(
            f"creating the firewall {fleet}",
            lambda: firewalls.get_by_name(fleet),
            lambda: (
                firewalls.create(
                    name=fleet,
                    rules=firewall_rules(ssh_sources),
                    labels=cast(Any, labels | {FLEET_LABEL: fleet}),  # the SDK's annotation is wrong
                ).firewall
            ),
            fleet=fleet,
        )
        if created:
            return identity, True
        bound, change = self._call(
            "looking at the firewall", lambda: _changed(firewalls.get_by_id(identity), ssh_sources)
        )
        agree(change)
        if change.changed:
            what = "changing the firewall"
            self.wait(what, self._call(what, lambda: bound.set_rules(change.rules)))
        return identity, change.changed

    def placement_group(self, fleet: str, index: int, labels: dict[str, str]) -> tuple[int, bool]:
        """The group that spreads the fleet's `index`-th server (from 0) and its neighbours; (id, created)."""
        groups, name = self._client.placement_groups, f"{fleet}-{index // SPREAD_SIZE + 1}"
        return self._obtain(
            f"creating the placement group {name}",
            lambda: groups.get_by_name(name),
            lambda: groups.create(name=name, type="spread", labels=labels | {FLEET_LABEL: fleet}).placement_group,
            fleet=fleet,
        )

    def _obtain(
        self, what: str, find: Callable[[], Any], create: Callable[[], Any], *, fleet: str = ""
    ) -> tuple[int, bool]:
        """(id, whether it was created now) of what `find` finds, else of what `create` creates.

        A request whose answer was lost is sent again, by the SDK or by us: then it is there, or its name is taken, by
        what the first one made. `fleet`: what is found must be this fleet's.
        """
        asked = False

        def attempt() -> Any:
            nonlocal asked
            found = find()
            if found is not None:
                return found
            asked = True
            try:
                return create()
            except APIException as error:
                found = find() if error.code == "uniqueness_error" else None
                if found is None:
                    raise
                return found

        identity, labels = self._call(what, lambda: _identity(attempt()))
        if fleet:
            self._own(labels, fleet, what.removeprefix("creating "))
        return identity, asked

    def create_server(self, order: ServerOrder) -> CloudServer:
        """Create a server and wait until it runs. One that is there already, from a broken-off attempt, is taken.

        Raises Unavailable when this type is out of stock in this location; nothing is left behind then.
        """
        what = f"creating {order.name}"
        servers = self._client.servers
        actions: list[BoundAction] = []

        def create() -> BoundServer:
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
            actions.extend([created.action, *created.next_actions])
            return created.server

        identity, _ = self._obtain(
            what, lambda: servers.get_by_name(order.name), create, fleet=order.labels[FLEET_LABEL]
        )
        if not actions:
            # Whoever ordered it may not have seen the end of it.
            actions += self._call(
                what,
                lambda: [
                    action
                    for action in servers.get_actions_list(Server(id=identity)).actions
                    if action.data_model.command == "create_server" or action.data_model.status == "running"
                ],
            )
        try:
            self.wait(what, actions)
        except Unavailable:
            # It would hold its name.
            self.destroy_server(Found(identity, order.name))
            raise
        running: CloudServer = self._call(what, lambda: _server(servers.get_by_id(identity)))
        return running

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
                current = self._call(what, partial(self._action, current.id))
            if current.status == "error":
                raise self._hiding_token(classify(what, ActionFailedException(action=current)))

    def _action(self, identity: int) -> Any:
        return self._client.actions.get_by_id(identity).data_model

    def leftovers(self, fleet: str) -> Leftovers:
        """Everything with the fleet's label."""
        kinds: dict[str, Any] = {
            "servers": self._client.servers,
            "firewalls": self._client.firewalls,
            "placement groups": self._client.placement_groups,
            "SSH keys": self._client.ssh_keys,
        }

        def found(client: Any) -> list[Found]:
            models = [one.data_model for one in client.get_all(label_selector=selector(fleet))]
            return [Found(int(model.id), str(model.name), _address(model)) for model in models]

        return Leftovers(*(self._call(f"listing {kind}", partial(found, client)) for kind, client in kinds.items()))

    def destroy_server(self, server: Found, may_begin: Callable[[], None] = lambda: None) -> None:
        """Delete a server and wait until it is gone; one that is gone already is fine.

        Args:
            may_begin: called before each request to delete it; raises to send none.
        """
        what = f"deleting {server.name}"

        def delete() -> BoundAction | None:
            may_begin()
            action = self._gone(lambda: self._client.servers.delete(Server(id=server.id)))
            return action if isinstance(action, BoundAction) else None

        self.wait(what, [self._call(what, delete)])

    def destroy_shared(self, found: Leftovers, may_begin: Callable[[], None] = lambda: None) -> None:
        """Delete what the servers shared, once they are gone. `may_begin` as of `destroy_server`."""
        client, group = self._client, PlacementGroup
        deletions: list[tuple[str, list[Found], Callable[[int], Any]]] = [
            ("firewall", found.firewalls, lambda one: client.firewalls.delete(Firewall(id=one))),
            (
                "placement group",
                found.placement_groups,
                lambda one: client.placement_groups.delete(group(id=one)),
            ),
            ("SSH key", found.ssh_keys, lambda one: client.ssh_keys.delete(SSHKey(id=one))),
        ]
        for kind, those, delete in deletions:
            for one in those:

                def attempt(delete: Callable[[int], Any] = delete, identity: int = one.id) -> None:
                    may_begin()
                    self._gone(lambda: delete(identity))

                self._call(f"deleting the {kind} {one.name}", attempt)

    @staticmethod
    def _gone(delete: Callable[[], Any]) -> Any:
        """What is gone already, by a request whose answer was lost for one, is deleted too."""
        try:
            return delete()
        except APIException as error:
            if error.code != "not_found":
                raise
            return None

    def _own(self, labels: dict[str, str] | None, fleet: str, what: str) -> None:
        """Names are unique in a project: never touch what only happens to have ours."""
        if (labels or {}).get(FLEET_LABEL) != fleet:
            raise BadInput(
                f"{what} exists in the project, but is not this fleet's (it lacks the label {FLEET_LABEL}={fleet})",
                next_step="rename or delete it, or give the fleet another name",
            )


def _identity(bound: Any) -> tuple[int, dict[str, str]]:
    return int(bound.data_model.id), dict(bound.data_model.labels or {})


def _changed(bound: Any, ssh_sources: list[str]) -> tuple[Any, RuleChange]:
    return bound, rule_change(bound.data_model.rules or [], ssh_sources)


def _stock(bound: Any) -> tuple[str, dict[str, bool]]:
    """A server type's name, and where it can be had."""
    model = bound.data_model
    places = {str(one.location.data_model.name): one.available is not False for one in model.locations or []}
    return str(model.name), places


def _address(model: Any) -> str:
    """The public IPv4 address; empty where there is none."""
    network = getattr(model, "public_net", None)
    return str(network.ipv4.ip) if network is not None and network.ipv4 is not None else ""


def _server(bound: Any) -> CloudServer:
    model = bound.data_model
    return CloudServer(
        id=int(model.id),
        name=str(model.name),
        status=str(model.status),
        address=_address(model),
        type=str(model.server_type.data_model.name) if model.server_type else "",
        location=str(model.location.data_model.name) if model.location else "",
        labels=dict(model.labels or {}),
    )
