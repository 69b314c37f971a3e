"""The firewalls resource. Rules are enforced on the machine, outside the hosts, as the real cloud's are."""

from __future__ import annotations

import ipaddress
import re
import threading
from typing import Any

from controller.lab.actions import Actions
from controller.lab.packetfilter import load
from controller.lab.query import check_labels, selector
from controller.lab.replies import ApiError, invalid, not_found, not_unique, timestamp
from controller.lab.state import Document, State

PROTOCOLS = ("tcp", "udp", "icmp", "esp", "gre")
MAX_RULES = 50


class Firewalls:
    def __init__(self, lab: str, state: State, actions: Actions) -> None:
        self._lab = lab
        self._state = state
        self._actions = actions
        self._mutex = threading.Lock()
        self._enforced: dict[str, list[Document]] | None = None
        for command in ("apply_firewall", "remove_firewall", "set_firewall_rules"):
            actions.register(command, lambda _: self.enforce())

    def all(self) -> list[Document]:
        return [self._public(firewall) for firewall in self._state.all("firewall")]

    def known(self, identity: int) -> Document:
        firewall = self._state.get("firewall", identity)
        if firewall is None:
            raise not_found("firewall", identity)
        return firewall

    def get(self, identity: int) -> Document:
        return self._public(self.known(identity))

    def _public(self, firewall: Document) -> Document:
        servers = self._state.all("server")
        applied: list[Document] = []
        for target in firewall["targets"]:
            if target["type"] == "server":
                applied.append({"type": "server", "server": {"id": target["server"]}})
            else:
                matches = selector(target["selector"])
                applied.append(
                    {
                        "type": "label_selector",
                        "label_selector": {"selector": target["selector"]},
                        "applied_to_resources": [
                            {"type": "server", "server": {"id": one["id"]}} for one in servers if matches(one["labels"])
                        ],
                    }
                )
        return {key: firewall[key] for key in ("id", "name", "labels", "created", "rules")} | {"applied_to": applied}

    def of_server(self, server: Document) -> list[int]:
        """Ids of the firewalls that guard a server."""
        return [
            firewall["id"]
            for firewall in self._state.all("firewall")
            if any(_covers(target, server) for target in firewall["targets"])
        ]

    def create(self, body: dict[str, Any]) -> tuple[Document, list[Document]]:
        name = body.get("name")
        if not isinstance(name, str) or not 1 <= len(name) <= 128:
            raise invalid("name", "is required")
        with self._state.transaction():
            if any(one["name"] == name for one in self._state.all("firewall")):
                raise not_unique("name")
            firewall: Document = {
                "id": self._state.next_id(),
                "name": name,
                "labels": check_labels(body.get("labels") or {}),
                "created": timestamp(),
                "rules": _rules(body.get("rules") or []),
                "targets": [self._target(one) for one in body.get("apply_to") or []],
            }
            self._state.put("firewall", firewall)
            actions = [self._actions.create("set_firewall_rules", [("firewall", firewall["id"])])]
            actions += self._apply_actions(firewall["id"], firewall["targets"], "apply_firewall")
        self._actions.start(*actions)
        return self._public(firewall), actions

    def update(self, identity: int, name: str | None, labels: dict[str, str] | None) -> Document:
        with self._state.transaction():
            firewall = self.known(identity)
            if name is not None:
                if any(one["name"] == name and one["id"] != identity for one in self._state.all("firewall")):
                    raise not_unique("name")
                firewall["name"] = name
            if labels is not None:
                firewall["labels"] = labels
            self._state.put("firewall", firewall)
        return self._public(firewall)

    def delete(self, identity: int) -> None:
        with self._state.transaction():
            if any(_is_used(target, self._state.all("server")) for target in self.known(identity)["targets"]):
                raise ApiError("resource_in_use", f"firewall with ID '{identity}' is still in use")
            self._state.delete("firewall", identity)
        self.enforce()

    def set_rules(self, identity: int, body: dict[str, Any]) -> list[Document]:
        if not isinstance(body.get("rules"), list):
            raise invalid("rules", "is required")
        with self._state.transaction():
            firewall = self.known(identity)
            self._state.change("firewall", identity, rules=_rules(body["rules"]))
            actions = [self._actions.create("set_firewall_rules", [("firewall", identity)])]
            actions += self._apply_actions(identity, firewall["targets"], "apply_firewall")
        self._actions.start(*actions)
        return actions

    def apply(self, identity: int, body: dict[str, Any]) -> list[Document]:
        with self._state.transaction():
            firewall = self.known(identity)
            targets = [self._target(one) for one in body.get("apply_to") or []]
            if not targets:
                raise invalid("apply_to", "is required")
            if any(target in firewall["targets"] for target in targets):
                raise ApiError("firewall_already_applied", "firewall is already applied to this resource")
            self._state.change("firewall", identity, targets=firewall["targets"] + targets)
            actions = self._apply_actions(identity, targets, "apply_firewall")
        self._actions.start(*actions)
        return actions

    def remove(self, identity: int, body: dict[str, Any]) -> list[Document]:
        with self._state.transaction():
            firewall = self.known(identity)
            targets = [self._target(one) for one in body.get("remove_from") or []]
            if not targets:
                raise invalid("remove_from", "is required")
            if any(target not in firewall["targets"] for target in targets):
                raise ApiError("firewall_already_removed", "firewall is not applied to this resource")
            self._state.change("firewall", identity, targets=[one for one in firewall["targets"] if one not in targets])
            actions = self._apply_actions(identity, targets, "remove_firewall")
        self._actions.start(*actions)
        return actions

    def attach(self, identity: int, server: int) -> Document:
        """Apply to a server that is being created; the caller starts the action."""
        firewall = self.known(identity)
        self._state.change("firewall", identity, targets=[*firewall["targets"], {"type": "server", "server": server}])
        return self._actions.create("apply_firewall", [("server", server), ("firewall", identity)])

    def forget(self, server: int) -> None:
        """Drop a deleted server from every firewall."""
        for firewall in self._state.all("firewall"):
            targets = [target for target in firewall["targets"] if target.get("server") != server]
            self._state.change("firewall", firewall["id"], targets=targets)

    def _apply_actions(self, identity: int, targets: list[Document], command: str) -> list[Document]:
        servers = [one["id"] for one in self._state.all("server") if any(_covers(target, one) for target in targets)]
        return [self._actions.create(command, [("firewall", identity), ("server", server)]) for server in servers]

    def _target(self, resource: Any) -> Document:
        kind = resource.get("type") if isinstance(resource, dict) else None
        if kind == "server" and isinstance((resource.get("server") or {}).get("id"), int):
            if self._state.get("server", resource["server"]["id"]) is None:
                raise ApiError("not_found", "server not found", status=404)
            return {"type": "server", "server": resource["server"]["id"]}
        if kind == "label_selector" and isinstance((resource.get("label_selector") or {}).get("selector"), str):
            selector(resource["label_selector"]["selector"])
            return {"type": "label_selector", "selector": resource["label_selector"]["selector"]}
        raise invalid("apply_to", "must be a server or a label selector")

    def enforce(self) -> None:
        """Make the machine's packet filter hold exactly the applied rules."""
        with self._mutex:
            firewalls = self._state.all("firewall")
            guarded = {}
            for server in self._state.all("server"):
                covering = [one for one in firewalls if any(_covers(target, server) for target in one["targets"])]
                if covering:
                    guarded[server["address"]] = [rule for firewall in covering for rule in firewall["rules"]]
            if guarded != self._enforced:
                load(self._lab, guarded)
                self._enforced = guarded


def _covers(target: Document, server: Document) -> bool:
    if target["type"] == "server":
        return bool(target["server"] == server["id"])
    return selector(target["selector"])(server["labels"])


def _is_used(target: Document, servers: list[Document]) -> bool:
    return any(_covers(target, server) for server in servers)


def _rules(rules: Any) -> list[Document]:
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        raise invalid("rules", f"must be a list of at most {MAX_RULES}")
    return [_rule(rule) for rule in rules]


def _rule(rule: Any) -> Document:
    if (
        not isinstance(rule, dict)
        or rule.get("direction") not in {"in", "out"}
        or rule.get("protocol") not in PROTOCOLS
    ):
        raise invalid("rules", "each rule needs a direction (in, out) and a protocol")
    port = rule.get("port")
    if rule["protocol"] in {"tcp", "udp"}:
        if not isinstance(port, str) or not re.fullmatch(r"any|[0-9]{1,5}(-[0-9]{1,5})?", port):
            raise invalid("rules", "tcp and udp need a port, a range of ports, or `any`")
    elif port is not None:
        raise invalid("rules", f"{rule['protocol']} has no ports")
    networks: dict[str, list[str]] = {}
    for field in ("source_ips", "destination_ips"):
        try:
            networks[field] = [str(ipaddress.ip_network(one)) for one in rule.get(field) or []]
        except ValueError as error:
            raise invalid("rules", f"{field}: {error}") from error
    if not networks["source_ips" if rule["direction"] == "in" else "destination_ips"]:
        raise invalid("rules", "incoming rules need source_ips, outgoing ones destination_ips")
    return {
        "direction": rule["direction"],
        "protocol": rule["protocol"],
        "port": port,
        "description": rule.get("description"),
        **networks,
    }
