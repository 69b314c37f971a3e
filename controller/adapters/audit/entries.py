"""One line of the audit log: its shape, its hash, and what it says of the change that it tells of.

A change is two entries: `"state": "begun"` before it, and after it one whose `began` is the number of the first and
whose state is `ok`, `failed` or `interrupted`. An entry without a state is an older version's: it was written once the
change was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

Entry = dict[str, Any]

GENESIS = "0" * 64
BEGUN, OK, FAILED, INTERRUPTED = "begun", "ok", "failed", "interrupted"
ENDED_RUN = "ended_run"
FIELDS: dict[str, type] = {
    "number": int,
    "at": str,
    "who": str,
    "action": str,
    "fleet": str,
    "hosts": list,
    "why": str,
    "evidence": dict,
    "previous": str,
    "hash": str,
}
# `torn`: what was left of a line that was broken off before this entry (log.py).
OPTIONAL: dict[str, type] = {"state": str, "began": int, "torn": str}
# How every line of ours begins.
BEGINNING = b'{"number":'


def digest(entry: Entry) -> str:
    """The hash of all that an entry says."""
    said = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(entry: Entry) -> tuple[bytes, str]:
    """The entry as a line, without its end, and its hash."""
    # As it will be read: what JSON makes of keys and numbers is what the hash is of.
    entry = json.loads(json.dumps(entry))
    entry["hash"] = digest(entry)
    return json.dumps(entry, separators=(",", ":")).encode(), entry["hash"]


def parse(raw: bytes) -> Entry | None:
    """The entry that a line holds; None when it is none, whatever else it is."""
    try:
        entry = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not FIELDS.keys() <= entry.keys() <= FIELDS.keys() | OPTIONAL.keys():
        return None
    kinds = FIELDS | OPTIONAL
    if any(type(value) is not kinds[name] for name, value in entry.items()):
        return None
    return entry if all(isinstance(host, str) for host in entry["hosts"]) else None


def is_broken_off(raw: bytes) -> bool:
    """Whether a line is the beginning of one of ours: an older version left those in the middle of the log."""
    try:
        json.loads(raw.decode())
    except RecursionError:
        return False
    except ValueError:
        return raw.startswith(BEGINNING)
    return False


def not_ended(entries: Iterable[Entry]) -> set[int]:
    """The numbers of the changes that were begun, and of which no entry tells the end."""
    run_of: dict[int, object] = {}
    for entry in entries:
        if entry.get("state") == BEGUN:
            run_of[entry["number"]] = entry["evidence"].get("run")
        run_of.pop(entry.get("began", 0), None)
        # What a controller that was killed had begun, the one that has resumed its run has done again, or undone.
        ended = entry["evidence"].get(ENDED_RUN)
        run_of = {number: run for number, run in run_of.items() if ended is None or run != ended}
    return set(run_of)
