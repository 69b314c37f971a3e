"""Which configurations are on the host: staged, live, confirmed, and still what their ids say or not."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ratchet_host import paths
from ratchet_host.errors import Refused
from ratchet_host.files import identify
from ratchet_host.marks import mark_in, split_mark
from ratchet_host.paths import ID, LIVE_TARGET, ORIGINAL, configuration_file, confirmed_link, copy_file, ratchet


def pointed(link: Path) -> str | None:
    """The configuration a link names: an id, or `original`; None when it names nothing of ours."""
    try:
        target = str(link.readlink())
    except OSError:
        return None
    return target if target == ORIGINAL or ID.fullmatch(target) else None


def main_target() -> str:
    """What /etc/nginx/nginx.conf links to; empty when it is no link."""
    try:
        return str((paths.ETC / "nginx.conf").readlink())
    except OSError:
        return ""


def by_copy() -> bool:
    """Whether nginx.conf is the baseline's copy, because nginx did not take the baseline's own files."""
    baseline = confirmed()
    return baseline is not None and main_target() == str(copy_file(baseline))


def adopted() -> bool:
    """Whether /etc/nginx/nginx.conf is ours."""
    return main_target() == LIVE_TARGET or by_copy()


def live() -> str | None:
    """What nginx would start with."""
    return confirmed() if by_copy() else pointed(paths.live_link())


def confirmed() -> str | None:
    return pointed(confirmed_link())


def shown(identity: str | None) -> str | None:
    """An id as documents tell it: the distribution's own file counts as no configuration of ours."""
    return None if identity == ORIGINAL else identity


def text_of(identity: str) -> bytes:
    """The text of a configuration, without its mark. Raises OSError."""
    content = configuration_file(identity).read_bytes()
    return content if identity == ORIGINAL else split_mark(content)[1]


def baseline_marks() -> set[int]:
    """The marks of workers that run the baseline: by its file, or by its copy. The original's has none, which is 0."""
    baseline = confirmed()
    if baseline is None:
        return set()
    found = {mark_in(configuration_file(baseline)), mark_in(copy_file(baseline))}
    return found | {0} if baseline == ORIGINAL else found - {0}


def staged() -> list[str]:
    """Ids of the staged configurations, the latest staged first."""
    found: list[tuple[float, str]] = []
    for folder in ratchet().iterdir() if ratchet().is_dir() else []:
        # Beside another call that removes some, those that are left count.
        with contextlib.suppress(FileNotFoundError):
            if ID.fullmatch(folder.name):
                found.append((folder.stat().st_mtime, folder.name))
    return [name for _, name in sorted(found, reverse=True)]


def require_staged(identity: str) -> None:
    """Raises Refused unless the configuration is there and still what its id says."""
    try:
        text = text_of(identity)
    except OSError:
        raise Refused(f"configuration {identity} is not staged here; push it first") from None
    if identity != ORIGINAL and identify(text) != identity:
        raise Refused(f"{configuration_file(identity)} was edited by hand; push it again")


def edited(identity: str) -> bool:
    """Whether the file of a configuration is there, and is not what its id says."""
    try:
        return identity != ORIGINAL and identify(text_of(identity)) != identity
    except OSError:
        return False
