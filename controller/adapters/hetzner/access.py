"""Which API, and the token for it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from controller.adapters.secrets import TOKEN, read_secret, sources
from controller.model.errors import BadInput

DEFAULT_ENDPOINT = "https://api.hetzner.cloud/v1"
SOURCES = " or ".join(", ".join(sources(TOKEN)).rsplit(", ", 1))


@dataclass(frozen=True)
class Access:
    """An endpoint and the token for it; the token is not in its repr."""

    endpoint: str
    token: str = field(repr=False)


def read_access(environment: Mapping[str, str]) -> Access:
    """HCLOUD_ENDPOINT, and the token by the first of SOURCES that is set. Raises BadInput."""
    secret = read_secret(environment, TOKEN)
    if secret is None:
        raise BadInput(
            f"there is no API token: none of {SOURCES} is set",
            next_step="create one with read and write permission in the cloud console (Security, API tokens), then "
            "export HCLOUD_TOKEN=...; for local hosts: controller lab up says what to export",
        )
    if not re.fullmatch(r"[\x21-\x7e]+", secret.text):
        raise BadInput(
            "the API token is empty or holds a blank or an odd character",
            where=secret.source,
            next_step="copy it again",
        )
    return Access(_endpoint(environment.get("HCLOUD_ENDPOINT", "") or DEFAULT_ENDPOINT), secret.text)


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput(
            f"HCLOUD_ENDPOINT is not an address: {text!r}", next_step=f"it looks like {DEFAULT_ENDPOINT}; or unset it"
        )
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise BadInput(
            "HCLOUD_ENDPOINT would send the token over the network in the clear",
            where=text,
            next_step="use https; plain http is for an API on this machine only",
        )
    return text.rstrip("/")


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
