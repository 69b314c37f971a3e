"""What is not as the last confirm left it."""

from __future__ import annotations

from pathlib import Path

from ratchet_host import paths
from ratchet_host.configurations import adopted, by_copy, confirmed, live, staged, text_of
from ratchet_host.edits import kept_edits, read_record
from ratchet_host.errors import Refused
from ratchet_host.files import identify, short_diff
from ratchet_host.marks import split_mark
from ratchet_host.paths import ORIGINAL, configuration_file
from ratchet_host.tree import Tree

MAX_DRIFT_LINES = 20


def drift() -> dict[str, str] | None:
    """What somebody changed by hand since the last confirm: file -> how it differs. None when nothing did."""
    baseline = confirmed()
    if baseline is None:
        gone = {"ratchet/confirmed": "the link to the baseline is gone; a rollback makes it anew from its record"}
        return gone if any(paths.VAR.glob("confirmed-*.json")) else None
    found: dict[str, str] = {}
    record = read_record(baseline) or {}
    if not adopted():
        found["nginx.conf"] = "is not the link to ratchet/live/nginx.conf any more"
    if live() is None:
        found["ratchet/live"] = "is not a link to a staged configuration"
    for identity in sorted({baseline, live() or baseline, *staged()} - {ORIGINAL}):
        try:
            content = text_of(identity)
        except OSError as error:
            # One that is not in use may have been removed just now.
            if identity in {baseline, live()}:
                found[f"ratchet/{identity}/nginx.conf"] = str(error.strerror)
            continue
        if identify(content) != identity:
            before = record.get("nginx.conf", b"") if identity == baseline else b""
            difference = (
                short_diff(before, content, ("confirmed", "edited"), MAX_DRIFT_LINES) if before else "was edited"
            )
            found[f"ratchet/{identity}/nginx.conf"] = difference
    if record:
        found |= drift_of_includes(baseline, record)
    if by_copy():
        words = "the baseline's own files could not be put live, so nginx runs their copy; mend that, then roll back"
        found.setdefault("nginx.conf", words)
    for copy, name in kept_edits().items():
        found[name] = f"was edited, and is kept as {copy}: {difference_of(Path(copy), record)}"
    return found or None


def difference_of(kept: Path, record: dict[str, bytes]) -> str:
    """How a kept file differs from the baseline's main file."""
    try:
        _, content = split_mark(kept.read_bytes())
    except OSError as error:
        return str(error.strerror)
    return short_diff(record.get("nginx.conf", b""), content, ("confirmed", "edited"), MAX_DRIFT_LINES)


def drift_of_includes(baseline: str, record: dict[str, bytes]) -> dict[str, str]:
    """How the files that the baseline includes differ from the record's."""
    try:
        now = Tree(configuration_file(baseline)).files
    except Refused as refused:
        return {"configuration": str(refused)}
    found: dict[str, str] = {}
    for name in sorted((set(now) | set(record)) - {"nginx.conf"}):
        if name not in now:
            found[name] = "was removed"
        elif name not in record:
            found[name] = "was added"
        elif now[name] != record[name]:
            found[name] = short_diff(record[name], now[name], ("confirmed", "edited"), MAX_DRIFT_LINES)
    return found
