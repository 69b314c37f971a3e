"""The servers resource: what clients may ask of servers, and the jobs that do it with containers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from controller.lab import catalog
from controller.lab.actions import Actions
from controller.lab.faults import Faults
from controller.lab.firewalls import Firewalls
from controller.lab.hosts import Container, Hosts, Seed, next_address
from controller.lab.images import ensure_image
from controller.lab.machine import machine_limits
from controller.lab.query import check_labels
from controller.lab.replies import ApiError, invalid, not_found, not_unique, timestamp
from controller.lab.state import Document, State

HOSTNAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
USER_DATA_BYTES = 32 * 1024
MAX_SERVERS = 100
# A server labelled so gets an image without the packages that the roles install.
BARE_LABEL = "lab-image"

POWER = {
    "poweron": "start_server",
    "poweroff": "stop_server",
    "shutdown": "shutdown_server",
    "reboot": "reboot_server",
    "reset": "reset_server",
    "rebuild": "rebuild_server",
}


class PublicNet(BaseModel):
    enable_ipv4: StrictBool = True
    enable_ipv6: StrictBool = False


class FirewallReference(BaseModel):
    firewall: StrictInt


class CreateServer(BaseModel):
    """Body of POST /servers; what the lab has no use for (networks, volumes) is refused rather than ignored."""

    name: StrictStr
    server_type: StrictStr | StrictInt
    image: StrictStr | StrictInt
    location: StrictStr | StrictInt | None = None
    ssh_keys: list[StrictStr | StrictInt] = []
    user_data: StrictStr | None = ""
    labels: dict[str, Any] = {}
    start_after_create: StrictBool = True
    placement_group: StrictInt | None = None
    firewalls: list[FirewallReference] = []
    public_net: PublicNet | None = Field(default_factory=PublicNet)
    networks: list[Any] = Field(default=[], max_length=0)
    volumes: list[Any] = Field(default=[], max_length=0)


class Servers:
    def __init__(self, state: State, hosts: Hosts, actions: Actions, faults: Faults, firewalls: Firewalls) -> None:
        self._state = state
        self._hosts = hosts
        self._actions = actions
        self._faults = faults
        self._firewalls = firewalls
        self._network = hosts.ensure_network()
        for command, job in {
            "create_server": self._create,
            "start_server": self._start,
            "stop_server": self._stop,
            "shutdown_server": self._shut_down,
            "reboot_server": self._reboot,
            "reset_server": self._reset,
            "rebuild_server": self._rebuild,
            "delete_server": self._delete,
        }.items():
            actions.register(command, job)

    # What clients see

    def all(self) -> list[Document]:
        containers = self._hosts.all()
        return [self._public(server, containers) for server in self._state.all("server")]

    def get(self, identity: int) -> Document:
        server = self._known(identity)
        return self._public(server, self._hosts.all())

    def _known(self, identity: int) -> Document:
        server = self._state.get("server", identity)
        if server is None:
            raise not_found("server", identity)
        return server

    def _public(self, server: Document, containers: Mapping[int, Container]) -> Document:
        running = self._actions.running_for("server", server["id"])
        kind = next(one for one in catalog.SERVER_TYPES if one["id"] == server["server_type"])
        group = self._state.get("placement_group", server["placement_group"] or 0)
        return {
            "id": server["id"],
            "name": server["name"],
            "status": _status(running, containers.get(server["id"])),
            "created": server["created"],
            "public_net": {
                "ipv4": {
                    "id": server["address_id"],
                    "ip": server["address"],
                    "blocked": False,
                    "dns_ptr": f"{server['name']}.lab.invalid",
                },
                "ipv6": server["ipv6"],
                "floating_ips": [],
                "firewalls": [{"id": one, "status": "applied"} for one in self._firewalls.of_server(server)],
            },
            "private_net": [],
            "server_type": kind,
            "location": catalog.find(catalog.LOCATIONS, server["location"]),
            "image": catalog.find(catalog.IMAGES, server["image"]),
            "iso": None,
            "rescue_enabled": False,
            "locked": bool(running),
            "backup_window": None,
            "outgoing_traffic": 0,
            "ingoing_traffic": 0,
            "included_traffic": catalog.TRAFFIC_BYTES,
            "primary_disk_size": int(kind["disk"]),
            "protection": {"delete": False, "rebuild": False},
            "labels": server["labels"],
            "volumes": [],
            "load_balancers": [],
            "placement_group": group,
        }

    # What clients ask for

    def create(self, wanted: CreateServer) -> Document:
        if not HOSTNAME.fullmatch(wanted.name):
            raise invalid("name", "must be a valid hostname as per RFC 1123")
        if len((wanted.user_data or "").encode()) > USER_DATA_BYTES:
            raise invalid("user_data", "must be at most 32 KiB")
        if wanted.public_net is not None and not wanted.public_net.enable_ipv4:
            raise invalid("public_net", "the lab's servers always have an IPv4 address")
        labels = check_labels(wanted.labels)
        kind, image, location = self._choose(wanted)
        with self._state.transaction():
            servers = self._state.all("server")
            if any(server["name"].lower() == wanted.name.lower() for server in servers):
                raise not_unique("name")
            if len(servers) >= MAX_SERVERS:
                raise ApiError("resource_limit_exceeded", "server limit exceeded")
            keys = [self._key(reference) for reference in wanted.ssh_keys]
            for firewall in wanted.firewalls:
                self._firewalls.known(firewall.firewall)
            if (
                wanted.placement_group is not None
                and self._state.get("placement_group", wanted.placement_group) is None
            ):
                raise not_found("placement_group", wanted.placement_group)
            if self._faults.out_of_stock(kind["name"], location["name"], ordering=True):
                raise ApiError(
                    "resource_unavailable", f"server type {kind['name']} is unavailable in {location['name']}"
                )
            address = next_address(
                self._network, {server["address"] for server in servers}, self._state.count("address", start=0)
            )
            if address is None:
                raise ApiError("resource_unavailable", "the lab's network has no free address")
            identity = self._state.next_id()
            ipv6 = None
            if wanted.public_net is not None and wanted.public_net.enable_ipv6:
                ipv6 = {
                    "id": self._state.next_id(),
                    "ip": f"2001:db8:{identity:x}::/64",
                    "blocked": False,
                    "dns_ptr": [],
                }
            server: Document = {
                "id": identity,
                "name": wanted.name,
                "created": timestamp(),
                "server_type": kind["id"],
                "image": image["name"],
                "location": location["name"],
                "address": address,
                "address_id": self._state.next_id(),
                "ipv6": ipv6,
                "labels": labels,
                "placement_group": wanted.placement_group,
                "user_data": wanted.user_data or "",
                "public_keys": keys,
                "root_password": None if keys else secrets.token_urlsafe(12),
            }
            self._state.put("server", server)
            self._join_group(server)
            action = self._actions.create("create_server", [("server", identity)])
            following = (
                [self._actions.create("start_server", [("server", identity)])] if wanted.start_after_create else []
            )
            following += [self._firewalls.attach(one.firewall, identity) for one in wanted.firewalls]
        self._actions.start(action, *following)
        return {
            "server": self._public(server, {}),
            "action": action,
            "next_actions": following,
            "root_password": server["root_password"],
        }

    def _choose(self, wanted: CreateServer) -> tuple[Document, Document, Document]:
        kind = catalog.find(catalog.SERVER_TYPES, wanted.server_type)
        if kind is None:
            raise invalid("server_type", f"server type {wanted.server_type} not found")
        image = catalog.find(catalog.IMAGES, wanted.image)
        if image is None:
            raise invalid("image", f"image {wanted.image} not found")
        sold = [one["name"] for one in kind["locations"] if one["available"]]
        if kind["deprecated"]:
            raise invalid("server_type", f"server type {kind['name']} is deprecated and can no longer be ordered")
        location = catalog.find(catalog.LOCATIONS, wanted.location if wanted.location is not None else sold[0])
        if location is None:
            raise invalid("location", f"location {wanted.location} not found")
        if location["name"] not in sold:
            raise invalid("server_type", f"unsupported location for server type: {kind['name']} in {location['name']}")
        return kind, image, location

    def _key(self, reference: str | int) -> str:
        key = next(
            (one for one in self._state.all("ssh_key") if reference in {one["id"], one["name"], str(one["id"])}), None
        )
        if key is None:
            raise invalid("ssh_keys", f"SSH key {reference} not found")
        return str(key["public_key"])

    def _join_group(self, server: Document) -> None:
        group = self._state.get("placement_group", server["placement_group"] or 0)
        if group is not None:
            self._state.change("placement_group", group["id"], servers=[*group["servers"], server["id"]])

    def update(self, identity: int, name: str | None, labels: dict[str, str] | None) -> Document:
        with self._state.transaction():
            server = self._known(identity)
            if name is not None and name != server["name"]:
                if not HOSTNAME.fullmatch(name):
                    raise invalid("name", "must be a valid hostname as per RFC 1123")
                if any(
                    one["name"].lower() == name.lower() and one["id"] != identity for one in self._state.all("server")
                ):
                    raise not_unique("name")
                server["name"] = name
            if labels is not None:
                server["labels"] = labels
            self._state.put("server", server)
        self._firewalls.enforce()
        return self.get(identity)

    def delete(self, identity: int) -> Document:
        """Forget the server at once; its container goes with the action."""
        with self._state.transaction():
            action = self._order_in_transaction(identity, "delete_server")
            self._state.delete("server", identity)
            self._firewalls.forget(identity)
            for group in self._state.all("placement_group"):
                if identity in group["servers"]:
                    remaining = [one for one in group["servers"] if one != identity]
                    self._state.change("placement_group", group["id"], servers=remaining)
        self._actions.start(action)
        return action

    def power(self, identity: int, verb: str, body: dict[str, Any]) -> Document:
        """One of the POWER actions."""
        job: dict[str, Any] = {}
        if verb == "rebuild":
            image = catalog.find(catalog.IMAGES, body.get("image", ""))
            if image is None:
                raise invalid("image", f"image {body.get('image')} not found")
            job = {"image": image["name"]}
        return self._order(identity, POWER[verb], job)

    def _order(self, identity: int, command: str, job: dict[str, Any] | None = None) -> Document:
        with self._state.transaction():
            action = self._order_in_transaction(identity, command, job)
        self._actions.start(action)
        return action

    def _order_in_transaction(self, identity: int, command: str, job: dict[str, Any] | None = None) -> Document:
        self._known(identity)
        if self._actions.running_for("server", identity):
            raise ApiError("locked", "server is locked: an action is already running")
        return self._actions.create(command, [("server", identity)], job)

    # Jobs: each may be repeated

    def _server(self, action: Document) -> Document:
        return self._known(int(action["resources"][0]["id"]))

    def _create(self, action: Document) -> None:
        server = self._server(action)
        image = ensure_image(server["image"], bare=server["labels"].get(BARE_LABEL) == "bare")
        self._actions.progress(action, 50)
        kind = next(one for one in catalog.SERVER_TYPES if one["id"] == server["server_type"])
        self._hosts.write_seed(
            server["id"],
            Seed(
                instance=f"{server['id']}-{server['created']}",
                hostname=server["name"],
                user_data=server["user_data"],
                public_keys=server["public_keys"],
                root_password=server["root_password"],
            ),
        )
        self._hosts.create(
            server["id"],
            image=image,
            hostname=server["name"],
            address=server["address"],
            limits=machine_limits(kind["cores"], kind["memory"]),
            labels={"name": server["name"], "type": kind["name"], "image": server["image"]},
        )

    def _start(self, action: Document) -> None:
        server = self._server(action)
        self._hosts.start(server["id"])

    def _stop(self, action: Document) -> None:
        self._hosts.kill(self._server(action)["id"])

    def _shut_down(self, action: Document) -> None:
        self._hosts.shut_down(self._server(action)["id"])

    def _reboot(self, action: Document) -> None:
        self._shut_down(action)
        self._start(action)

    def _reset(self, action: Document) -> None:
        self._stop(action)
        self._start(action)

    def _rebuild(self, action: Document) -> None:
        server = self._server(action)
        self._hosts.remove_disk(server["id"])
        self._state.change("server", server["id"], image=action["job"]["image"])
        self._create(action)
        self._start(action)

    def _delete(self, action: Document) -> None:
        self._hosts.remove(int(action["resources"][0]["id"]))
        self._firewalls.enforce()


def _status(running: list[Document], container: Container | None) -> str:
    commands = {action["command"] for action in running}
    for command, status in {
        "create_server": "initializing",
        "rebuild_server": "rebuilding",
        "start_server": "starting",
        "stop_server": "stopping",
        "shutdown_server": "stopping",
    }.items():
        if command in commands:
            return status
    if container is None:
        return "unknown"
    return "running" if container.state == "running" else "off"
