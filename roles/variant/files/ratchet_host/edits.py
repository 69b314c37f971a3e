"""What somebody edited by hand: the record it is measured against, the copies that are kept of it, and the way back."""

from __future__ import annotations

import contextlib
import json
import syslog
from pathlib import Path

from ratchet_host import paths
from ratchet_host.configurations import confirmed, edited, live, staged
from ratchet_host.errors import Refused
from ratchet_host.files import identify, remove_tree, write_atomically
from ratchet_host.marker import Marker
from ratchet_host.paths import ORIGINAL, configuration_file, pristine_file, ratchet
from ratchet_host.system import log
from ratchet_host.tree import Tree


def write_record(identity: str) -> None:
    """Remember every file of the confirmed configuration."""
    try:
        contents = Tree(configuration_file(identity)).files
    except Refused as refused:
        log(f"only the main file is watched for edits: {refused}", syslog.LOG_WARNING)
        contents = {"nginx.conf": configuration_file(identity).read_bytes()}
    files = {name: content.decode("utf-8", "surrogateescape") for name, content in contents.items()}
    document = json.dumps({"id": identity, "files": files}).encode()
    write_atomically(paths.VAR / "confirmed.json", document, 0o600)


def read_record(identity: str) -> dict[str, bytes] | None:
    """Files at the last confirm of `identity`; None when there is no such record."""
    try:
        record = json.loads((paths.VAR / "confirmed.json").read_bytes())
        if record["id"] != identity:
            return None
        return {name: text.encode("utf-8", "surrogateescape") for name, text in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep_edited(path: Path) -> None:
    """Keep a copy of a file that somebody edited, before it is replaced, and remember to tell of it."""
    content = path.read_bytes()
    kept = ratchet() / ORIGINAL / f"edited-{identify(content)}.conf"
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, content)
    # Going back to the baseline does not wait for a disk that is full.
    with contextlib.suppress(OSError):
        edits = kept_edits() | {str(kept): str(path)}
        write_atomically(paths.VAR / "edits.json", json.dumps(edits).encode(), 0o600)
    log(f"kept the edited {path} as {kept}", syslog.LOG_WARNING)


def kept_edits() -> dict[str, str]:
    """Copies of edited files that nobody was told of yet by `confirm` or `rollback`: where -> which file it was."""
    try:
        return {str(kept): str(path) for kept, path in json.loads((paths.VAR / "edits.json").read_bytes()).items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def tell_edits() -> list[str]:
    """Where edited files are kept; the answer that gives them to a person ends their being drift."""
    edits = kept_edits()
    (paths.VAR / "edits.json").unlink(missing_ok=True)
    return sorted(edits)


def put_edits_aside() -> None:
    """Keep a copy of every configuration that somebody edited while it was on trial; what is edited goes."""
    for identity in staged():
        if identity not in {live(), confirmed()} and edited(identity):
            keep_edited(configuration_file(identity))
            remove_tree(ratchet() / identity)


def heal(identity: str) -> None:
    """Undo an edit by hand of a file that is live; the edited one is kept."""
    pristine = pristine_file(identity)
    original = pristine.read_bytes() if pristine.is_file() else (read_record(identity) or {}).get("nginx.conf", b"")
    if identify(original) != identity:
        raise Refused(f"{configuration_file(identity)} was edited by hand; push it again")
    keep_edited(configuration_file(identity))
    write_atomically(configuration_file(identity), original)
    pristine.unlink(missing_ok=True)
    Marker.clear()
