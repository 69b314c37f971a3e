"""What provisioning asks the cloud for, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from hcloud.helpers.labels import LabelValidator

from controller.model.errors import HostFailed
from controller.model.fleet import Placement

FLEET_LABEL = "ratchet-fleet"

# The former small types, which can no longer be ordered, and what took their place.
SUCCESSORS = {
    "cx11": "cx23",
    "cx21": "cx23",
    "cx22": "cx23",
    "cx31": "cx33",
    "cx32": "cx33",
    "cx41": "cx43",
    "cx42": "cx43",
    "cx51": "cx53",
    "cx52": "cx53",
}


class Unavailable(HostFailed):
    """This type is out of stock in this location: the next preference may be had."""


@dataclass(frozen=True)
class CloudServer:
    """One server as the API describes it."""

    id: int
    name: str
    status: str
    address: str
    type: str
    location: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerOrder:
    """A server to create."""

    name: str
    image: str
    placement: Placement
    user_data: str
    labels: dict[str, str]
    ssh_key: int
    firewall: int
    placement_group: int


@dataclass(frozen=True)
class Found:
    """Something in the project; `address` is a server's."""

    id: int
    name: str
    address: str = ""


@dataclass(frozen=True)
class Leftovers:
    """Everything in the project that carries a fleet's label."""

    servers: list[Found]
    firewalls: list[Found]
    placement_groups: list[Found]
    ssh_keys: list[Found]

    def __bool__(self) -> bool:
        return bool(self.servers or self.firewalls or self.placement_groups or self.ssh_keys)

    def words(self) -> str:
        parts = [
            ("servers", self.servers),
            ("firewalls", self.firewalls),
            ("placement groups", self.placement_groups),
            ("SSH keys", self.ssh_keys),
        ]
        return "; ".join(f"{kind}: {', '.join(one.name for one in found)}" for kind, found in parts if found)


def selector(fleet: str) -> str:
    """The label selector of what belongs to a fleet."""
    return f"{FLEET_LABEL}={fleet}"


def is_label(key: str, value: str) -> bool:
    """Whether the API takes this label."""
    return LabelValidator.validate({key: value})


def modern(placement: Placement) -> Placement:
    """The placement, with a type that is no longer sold replaced by its successor."""
    return placement.model_copy(update={"type": SUCCESSORS.get(placement.type, placement.type)})
