"""Which configurations are on the host: staged, live, confirmed, and still what their ids say or not."""

from __future__ import annotations

import os
from pathlib import Path

from ratchet_host import paths
from ratchet_host.errors import Refused
from ratchet_host.files import identify
from ratchet_host.paths import ID, ORIGINAL, configuration_file, confirmed_link, live_link, ratchet


def pointed(link: Path) -> str | None:
    """The configuration a link names: an id, or `original`; None when it names nothing of ours."""
    try:
        target = str(link.readlink())
    except OSError:
        return None
    return target if target == ORIGINAL or ID.fullmatch(target) else None


def adopted() -> bool:
    """Whether /etc/nginx/nginx.conf is ours."""
    try:
        return str((paths.ETC / "nginx.conf").readlink()) == "ratchet/live/nginx.conf"
    except OSError:
        return False


def live() -> str | None:
    return pointed(live_link())


def confirmed() -> str | None:
    return pointed(confirmed_link())


def shown(identity: str | None) -> str | None:
    """An id as documents tell it: the distribution's own file counts as no configuration of ours."""
    return None if identity == ORIGINAL else identity


def staged() -> list[str]:
    """Ids of the staged configurations, the latest staged first."""
    try:
        entries = [entry for entry in os.scandir(ratchet()) if ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    return [entry.name for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)]


def require_staged(identity: str) -> None:
    """Raises Refused unless the configuration is there and still what its id says."""
    try:
        content = configuration_file(identity).read_bytes()
    except OSError:
        raise Refused(f"configuration {identity} is not staged here; push it first") from None
    if identity != ORIGINAL and identify(content) != identity:
        raise Refused(f"{configuration_file(identity)} was edited by hand; push it again")


def edited(identity: str) -> bool:
    """Whether the file of a configuration is there, and is not what its id says."""
    path = configuration_file(identity)
    return identity != ORIGINAL and path.is_file() and identify(path.read_bytes()) != identity
