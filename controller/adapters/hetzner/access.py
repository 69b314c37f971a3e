"""Which API, and the token for it: from the environment, a file or a command; never from an argument, never printed."""

from __future__ import annotations

import ipaddress
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from controller.model.errors import BadInput

DEFAULT_ENDPOINT = "https://api.hetzner.cloud/v1"
COMMAND_SECONDS = 30
SOURCES = "HCLOUD_TOKEN, HCLOUD_TOKEN_FILE or HCLOUD_TOKEN_COMMAND"


@dataclass(frozen=True)
class Access:
    """An endpoint and the token for it; the token is not in its repr."""

    endpoint: str
    token: str = field(repr=False)


def read_access(environment: Mapping[str, str]) -> Access:
    """HCLOUD_ENDPOINT, and the first of HCLOUD_TOKEN, HCLOUD_TOKEN_FILE, HCLOUD_TOKEN_COMMAND. Raises BadInput."""
    token, source = _token(environment)
    token = token.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise BadInput(
            "the API token is empty or holds a blank or an odd character", where=source, next_step="copy it again"
        )
    return Access(_endpoint(environment.get("HCLOUD_ENDPOINT", "") or DEFAULT_ENDPOINT), token)


def _token(environment: Mapping[str, str]) -> tuple[str, str]:
    if environment.get("HCLOUD_TOKEN"):
        return environment["HCLOUD_TOKEN"], "HCLOUD_TOKEN"
    if environment.get("HCLOUD_TOKEN_FILE"):
        path = Path(environment["HCLOUD_TOKEN_FILE"]).expanduser()
        try:
            return path.read_text(encoding="ascii"), "HCLOUD_TOKEN_FILE"
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not plain text"
            raise BadInput(
                f"the token's file cannot be read: {reason}", where=str(path), next_step="check HCLOUD_TOKEN_FILE"
            ) from None
    if environment.get("HCLOUD_TOKEN_COMMAND"):
        return _from_command(environment["HCLOUD_TOKEN_COMMAND"]), "HCLOUD_TOKEN_COMMAND"
    raise BadInput(
        f"there is no API token: none of {SOURCES} is set",
        next_step="create one with read and write permission in the cloud console (Security, API tokens), then "
        "export HCLOUD_TOKEN=...; for local hosts: controller lab up says what to export",
    )


def _from_command(command: str) -> str:
    """The command's first line of output. Its stderr goes to the operator: it may ask for a password there."""
    try:
        words = shlex.split(command)
        done = subprocess.run(words, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=False, text=True)
    except (OSError, ValueError, IndexError, UnicodeDecodeError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise BadInput(
            f"the token's command does not work: {reason}", where="HCLOUD_TOKEN_COMMAND", next_step=f"try it: {command}"
        ) from None
    if done.returncode != 0:
        raise BadInput(
            f"the token's command ended with {done.returncode}",
            where="HCLOUD_TOKEN_COMMAND",
            next_step=f"try it: {command}",
        )
    return done.stdout.partition("\n")[0]


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
