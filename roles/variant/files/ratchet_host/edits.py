"""What somebody edited by hand: the record it is measured against, the copies that are kept of it, and the way back."""

from __future__ import annotations

import contextlib
import itertools
import json
import syslog
from pathlib import Path

from ratchet_host import paths
from ratchet_host.configurations import confirmed, edited, live, staged, text_of
from ratchet_host.errors import Refused
from ratchet_host.files import identify, remove_tree, write_atomically
from ratchet_host.instance import marks_in_use, read_words
from ratchet_host.language import render
from ratchet_host.marks import mark_in, new_mark, split_mark, with_mark
from ratchet_host.nginx import test
from ratchet_host.paths import ORIGINAL, configuration_file, copy_file, marks_file, pristine_file, ratchet, record_file
from ratchet_host.system import log
from ratchet_host.tree import Tree


def read_tree(identity: str) -> Tree | None:
    """Every file of a configuration; None where they cannot be read as nginx does."""
    try:
        return Tree(configuration_file(identity))
    except Refused as refused:
        log(f"only the main file is watched for edits, and no copy is kept: {refused}", syslog.LOG_WARNING)
        return None


def write_record(identity: str, tree: Tree | None) -> None:
    """Remember every file of a configuration that is to be the baseline, and all of them in one file. Raises OSError.

    The record of the one that is the baseline yet stays, so that each is whole until `forget_records`.
    """
    contents = tree.files if tree else {"nginx.conf": text_of(identity)}
    copy = render(tree.directives).encode("utf-8", "surrogateescape") if tree else b""
    files = {name: content.decode("utf-8", "surrogateescape") for name, content in contents.items()}
    document = json.dumps({"id": identity, "files": files}).encode()
    write_atomically(record_file(identity), document, 0o600)
    record_mark(identity, mark_in(configuration_file(identity)))
    if copy:
        words = f"# the baseline {identity} in one file: live because nginx did not take its own files;\n"
        words += (
            "# edits there are not loaded. Mend them (sudo ratchet-host status), then: sudo ratchet-host rollback\n"
        )
        mark = new_mark(marks_in_use())
        record_mark(identity, mark)
        write_atomically(copy_file(identity), with_mark(words.encode() + copy, mark), 0o600)
        problem = test(copy_file(identity), "copy")
        if problem:
            log(f"no copy of {identity} is kept, nginx refuses it: {problem}", syslog.LOG_WARNING)
            copy_file(identity).unlink()


def forget_records(identity: str) -> None:
    """Remove the records of all other configurations."""
    kept = {record_file(identity), copy_file(identity), marks_file(identity)}
    records = [paths.VAR.glob(pattern) for pattern in ("confirmed-*.json", "baseline-*.conf", "marks-*")]
    for path in itertools.chain(*records):
        if path not in kept:
            path.unlink(missing_ok=True)


def read_record(identity: str) -> dict[str, bytes] | None:
    """Files at the last confirm of `identity`; None when there is no such record."""
    try:
        record = json.loads(record_file(identity).read_bytes())
        if record["id"] != identity:
            return None
        return {name: text.encode("utf-8", "surrogateescape") for name, text in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def keep_edited(path: Path, name: str = "") -> None:
    """Keep a copy of a file that somebody edited, before it is replaced, and remember to tell of it (by `name`)."""
    _, content = split_mark(path.read_bytes())
    kept = ratchet() / ORIGINAL / f"edited-{identify(content)}.conf"
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, content, like=path)
    # Going back to the baseline does not wait for a disk that is full.
    with contextlib.suppress(OSError):
        edits = recorded_edits() | {str(kept): name or str(path)}
        write_atomically(paths.VAR / "edits.json", json.dumps(edits).encode(), 0o600)
    log(f"kept the edited {path} as {kept}", syslog.LOG_WARNING)


def recorded_edits() -> dict[str, str]:
    """Copies that this program has made and not told yet: where -> which file it was."""
    try:
        told = json.loads((paths.VAR / "edits.json").read_bytes())
        return {str(kept): str(path) for kept, path in told.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def kept_by_keeper() -> list[Path]:
    """The keeper leaves what it found in its way beside it."""
    return sorted(paths.ETC.glob("nginx.conf.edited-*"))


def take_from_keeper() -> None:
    """Keep what it has left where all edited files are kept, until somebody is told."""
    for kept in kept_by_keeper():
        if kept.exists():
            keep_edited(kept, str(paths.ETC / "nginx.conf"))
        kept.unlink()


def kept_edits() -> dict[str, str]:
    """Copies of edited files that nobody was told of yet by `confirm` or `rollback`: where -> which file it was."""
    return {str(kept): str(paths.ETC / "nginx.conf") for kept in kept_by_keeper()} | recorded_edits()


def tell_edits() -> list[str]:
    """Where edited files are kept; the answer that gives them to a person ends their being drift."""
    take_from_keeper()
    edits = recorded_edits()
    (paths.VAR / "edits.json").unlink(missing_ok=True)
    return sorted(edits)


def put_edits_aside() -> None:
    """Keep a copy of every configuration that somebody edited while it was on trial; what is edited goes."""
    for identity in staged():
        if identity not in {live(), confirmed()} and edited(identity):
            keep_edited(configuration_file(identity))
            remove_tree(ratchet() / identity)


def heal(identity: str) -> None:
    """Undo an edit by hand of a file that is live; the edited one is kept. It has a new mark: nginx has to read it."""
    pristine = pristine_file(identity)
    original = pristine.read_bytes() if pristine.is_file() else (read_record(identity) or {}).get("nginx.conf", b"")
    if identify(original) != identity:
        raise Refused(f"{configuration_file(identity)} was edited by hand; push it again")
    keep_edited(configuration_file(identity))
    remark(identity, original)
    pristine.unlink(missing_ok=True)


def remake(identity: str) -> bool:
    """Make the baseline's file anew from its record, where somebody has removed it. True when it was so."""
    text = (read_record(identity) or {}).get("nginx.conf", b"")
    if configuration_file(identity).exists() or identify(text) != identity:
        return False
    configuration_file(identity).parent.mkdir(parents=True, exist_ok=True)
    remark(identity, text)
    log(f"made {configuration_file(identity)} anew from the record of the baseline", syslog.LOG_WARNING)
    return True


def remark(identity: str, text: bytes) -> None:
    """Write the file of a configuration with a new mark: nginx has read it when its workers show that."""
    mark = new_mark(marks_in_use())
    if identity == confirmed():
        record_mark(identity, mark)
    path = configuration_file(identity)
    write_atomically(path, with_mark(text, mark), like=path if path.exists() else configuration_file(ORIGINAL))


def record_mark(identity: str, *marks: int) -> None:
    """Tell the keeper a mark of the baseline before anything has it: an edit of a file takes none away."""
    words = [*read_words(marks_file(identity))[-20:], *(str(mark) for mark in marks if mark)]
    write_atomically(marks_file(identity), (" ".join(words) + "\n").encode(), 0o600)
