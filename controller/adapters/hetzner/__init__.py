"""Hetzner Cloud through its SDK, mapped to frozen types: no SDK object leaves this room, so none calls home later."""

from controller.adapters.hetzner.access import Access, read_access
from controller.adapters.hetzner.cloud import Cloud
from controller.adapters.hetzner.domain import (
    FLEET_LABEL,
    CloudServer,
    Found,
    Leftovers,
    ServerOrder,
    Unavailable,
    is_label,
    modern,
)
from controller.adapters.hetzner.firewall import RuleChange
from controller.adapters.hetzner.user_data import user_data

__all__ = [
    "FLEET_LABEL",
    "Access",
    "Cloud",
    "CloudServer",
    "Found",
    "Leftovers",
    "RuleChange",
    "ServerOrder",
    "Unavailable",
    "is_label",
    "modern",
    "read_access",
    "user_data",
]
