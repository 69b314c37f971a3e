"""One lab's cloud, put together, and its table of routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from controller.lab import catalog
from controller.lab.actions import Actions, public
from controller.lab.faults import Faults
from controller.lab.firewalls import Firewalls
from controller.lab.hosts import Hosts
from controller.lab.projects import Named
from controller.lab.query import Call, filtered, ordered, page
from controller.lab.reboots import Reboots
from controller.lab.replies import ApiError, invalid, not_found
from controller.lab.servers import POWER, CreateServer, Servers
from controller.lab.state import Document, State

Answer = tuple[int, Any]
Handler = Callable[..., Answer]
Routes = list[tuple[str, str, Handler]]


class Cloud:
    """Everything behind the API of one lab. `folder` is the lab's volume."""

    def __init__(self, lab: str, folder: Path) -> None:
        self.lab = lab
        self.state = State(folder)
        self.faults = Faults(self.state)
        self.actions = Actions(self.state, self.faults)
        self.hosts = Hosts(lab, folder)
        self.reboots = Reboots(self.hosts)
        self.firewalls = Firewalls(lab, self.state, self.actions)
        self.servers = Servers(self.state, self.hosts, self.actions, self.faults, self.firewalls)
        self.ssh_keys = Named(self.state, "ssh_key")
        self.placement_groups = Named(self.state, "placement_group")

    def open(self) -> None:
        self.firewalls.enforce()
        self.actions.take_up()
        self.reboots.open()

    def close(self) -> None:
        self.reboots.close()
        self.actions.stop()

    def server_types(self) -> list[Document]:
        """The catalog, with what is out of stock marked so."""

        def in_stock(kind: Document, place: Document) -> bool:
            return place["available"] and not self.faults.out_of_stock(kind["name"], place["name"], ordering=False)

        return [
            kind | {"locations": [place | {"available": in_stock(kind, place)} for place in kind["locations"]]}
            for kind in catalog.SERVER_TYPES
        ]


def routes(cloud: Cloud) -> Routes:
    """(method, path of a starlette Route, handler(call, *ids) -> (status, document))."""
    firewalls = cloud.firewalls
    return [
        *_readable("location", "locations", lambda: catalog.LOCATIONS),
        *_readable("server_type", "server_types", cloud.server_types),
        *_readable("image", "images", lambda: catalog.IMAGES, filters=("type", "status", "architecture")),
        ("GET", "/pricing", lambda _: (200, {"pricing": catalog.pricing()})),
        ("GET", "/datacenters", _removed),
        ("GET", "/datacenters/{id:id}", _removed),
        *_readable("ssh_key", "ssh_keys", cloud.ssh_keys.all, filters=("fingerprint",)),
        *_changeable("ssh_key", "ssh_keys", cloud.ssh_keys),
        ("POST", "/ssh_keys", lambda call: (201, {"ssh_key": cloud.ssh_keys.create(call.body)})),
        *_readable("placement_group", "placement_groups", cloud.placement_groups.all, filters=("type",)),
        *_changeable("placement_group", "placement_groups", cloud.placement_groups),
        (
            "POST",
            "/placement_groups",
            lambda call: (201, {"placement_group": cloud.placement_groups.create(call.body), "action": None}),
        ),
        *_readable("firewall", "firewalls", firewalls.all),
        *_changeable("firewall", "firewalls", firewalls),
        ("POST", "/firewalls", lambda call: _created_firewall(*firewalls.create(call.body))),
        (
            "POST",
            "/firewalls/{id:id}/actions/set_rules",
            lambda call, one: _actions(firewalls.set_rules(one, call.body)),
        ),
        (
            "POST",
            "/firewalls/{id:id}/actions/apply_to_resources",
            lambda call, one: _actions(firewalls.apply(one, call.body)),
        ),
        (
            "POST",
            "/firewalls/{id:id}/actions/remove_from_resources",
            lambda call, one: _actions(firewalls.remove(one, call.body)),
        ),
        *_readable("server", "servers", cloud.servers.all, filters=("status",)),
        (
            "PUT",
            "/servers/{id:id}",
            lambda call, one: (200, {"server": cloud.servers.update(one, *call.name_and_labels())}),
        ),
        ("POST", "/servers", lambda call: _created_server(cloud, call)),
        ("DELETE", "/servers/{id:id}", lambda _, one: (200, {"action": public(cloud.servers.delete(one))})),
        *(("POST", f"/servers/{{id:id}}/actions/{verb}", _power(cloud, verb)) for verb in POWER),
        *_action_routes(cloud),
    ]


def _removed(*_: Any) -> Answer:
    raise ApiError("deprecated_api_endpoint", "the datacenters endpoints were removed; use the locations endpoints")


def _readable(one: str, many: str, documents: Callable[[], list[Document]], filters: Iterable[str] = ()) -> Routes:
    def listing(call: Call) -> Answer:
        chosen = filtered(documents(), call.parameters, ("name", *filters))
        chosen, meta = page(ordered(chosen, call.parameters, ("id", "name", "created")), call.parameters)
        return 200, {many: chosen, "meta": meta}

    def single(_: Call, identity: int) -> Answer:
        document = next((document for document in documents() if document["id"] == identity), None)
        if document is None:
            raise not_found(one, identity)
        return 200, {one: document}

    return [("GET", f"/{many}", listing), ("GET", f"/{many}/{{id:id}}", single)]


def _changeable(one: str, many: str, resource: Named | Firewalls) -> Routes:
    def update(call: Call, identity: int) -> Answer:
        return 200, {one: resource.update(identity, *call.name_and_labels())}

    def delete(_: Call, identity: int) -> Answer:
        resource.delete(identity)
        return 204, None

    return [("PUT", f"/{many}/{{id:id}}", update), ("DELETE", f"/{many}/{{id:id}}", delete)]


def _actions(actions: list[Document]) -> Answer:
    return 201, {"actions": [public(action) for action in actions]}


def _created_firewall(firewall: Document, actions: list[Document]) -> Answer:
    return 201, {"firewall": firewall, "actions": [public(action) for action in actions]}


def _created_server(cloud: Cloud, call: Call) -> Answer:
    answer = cloud.servers.create(CreateServer.model_validate(call.body))
    answer["action"] = public(answer["action"])
    answer["next_actions"] = [public(action) for action in answer["next_actions"]]
    return 201, answer


def _power(cloud: Cloud, verb: str) -> Handler:
    def order(call: Call, identity: int) -> Answer:
        answer: Document = {"action": public(cloud.servers.power(identity, verb, call.body))}
        return 201, answer | {"root_password": None} if verb == "rebuild" else answer

    return order


def _action_routes(cloud: Cloud) -> Routes:
    state = cloud.state

    def found(action_id: int, kind: str | None, resource: int | None) -> Document:
        action = state.get("action", action_id)
        if action is None or not _concerns(action, kind, resource):
            raise not_found("action", action_id)
        return public(action)

    def listing(kind: str) -> Handler:
        def answer(call: Call, resource: int | None = None) -> Answer:
            chosen = [public(one) for one in state.all("action") if _concerns(one, kind, resource)]
            chosen = filtered(chosen, call.parameters, ("id", "status"))
            fields = ("id", "command", "status", "started", "finished")
            chosen, meta = page(ordered(chosen, call.parameters, fields), call.parameters)
            return 200, {"actions": chosen, "meta": meta}

        return answer

    def by_ids(call: Call) -> Answer:
        wanted = call.parameters.get("id", [])
        if not wanted:
            raise invalid("id", "is required")
        return 200, {"actions": [public(one) for one in state.all("action") if str(one["id"]) in wanted]}

    table: Routes = [
        ("GET", "/actions", by_ids),
        ("GET", "/actions/{id:id}", lambda _, action: (200, {"action": found(action, None, None)})),
    ]
    for kind in ("server", "firewall"):
        table += [
            ("GET", f"/{kind}s/actions", listing(kind)),
            (
                "GET",
                f"/{kind}s/actions/{{id:id}}",
                lambda _, action, kind=kind: (200, {"action": found(action, kind, None)}),
            ),
            ("GET", f"/{kind}s/{{id:id}}/actions", listing(kind)),
            (
                "GET",
                f"/{kind}s/{{id:id}}/actions/{{action:id}}",
                lambda _, resource, action, kind=kind: (200, {"action": found(action, kind, resource)}),
            ),
        ]
    return table


def _concerns(action: Document, kind: str | None, identity: int | None) -> bool:
    return any(
        (kind is None or resource["type"] == kind) and (identity is None or resource["id"] == identity)
        for resource in action["resources"]
    )
