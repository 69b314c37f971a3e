"""Whether a log is whole: a pure function of its lines and of the head that the database remembers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.adapters.audit.entries import GENESIS, Entry, digest, is_broken_off, not_ended, parse

BROKEN_OFF = "was broken off while it was written (a full disk, a kill, a power cut)"


@dataclass(frozen=True)
class Finding:
    """Something that `verify` noticed. `line` counts from 1; 0 when it is about the whole file."""

    line: int
    what: str


@dataclass(frozen=True)
class Verified:
    """What `verify` saw: `findings` say that the log is not whole; `notes` are no fault of it."""

    entries: int
    findings: list[Finding]
    notes: list[Finding]


def check(lines: list[bytes], rest: bytes, head: tuple[int, str] | None) -> Verified:
    """`rest`: what is after the last line's end; `head`: number and hash of the last entry that is remembered."""
    findings: list[Finding] = []
    notes: list[Finding] = []
    entries: list[tuple[int, Entry]] = []
    number, previous = 0, GENESIS
    for line, raw in enumerate(lines, 1):
        entry = parse(raw)
        if entry is None:
            torn = is_broken_off(raw)
            (notes if torn else findings).append(Finding(line, BROKEN_OFF if torn else "is not an entry"))
            continue
        if entry["hash"] != digest(entry):
            findings.append(Finding(line, "was edited: its content does not give its hash"))
        if entry["previous"] != previous or entry["number"] != number + 1:
            what = f"does not follow entry {number}: something was deleted, inserted or moved before it"
            findings.append(Finding(line, what))
        number, previous = entry["number"], entry["hash"]
        entries.append((line, entry))
    if rest:
        notes.append(Finding(len(lines) + 1, BROKEN_OFF))
    findings += _of_head(head, number, {entry["number"]: entry["hash"] for _, entry in entries})
    return Verified(len(entries), findings, sorted([*notes, *_open(entries)], key=lambda note: note.line))


def _of_head(head: tuple[int, str] | None, number: int, hashes: dict[int, str]) -> Iterator[Finding]:
    if head is None:
        if hashes:
            what = "the database remembers nothing of this log: whether its end is missing cannot be told"
            yield Finding(0, what)
    elif not holds(head, hashes):
        what = f"the last entry is number {number}, the database remembers another number {head[0]}: the end differs"
        yield Finding(0, what)


def holds(head: tuple[int, str] | None, hashes: dict[int, str]) -> bool:
    """Whether a log with these entries (number -> hash) has the remembered one. It may go on after it."""
    return head is not None and (hashes | {0: GENESIS}).get(head[0]) == head[1]


def _open(entries: list[tuple[int, Entry]]) -> Iterator[Finding]:
    numbers = not_ended(entry for _, entry in entries)
    for line, entry in entries:
        if entry.get("state") == "begun" and entry["number"] in numbers:
            yield Finding(line, f"{entry['action']} of fleet {entry['fleet']} is not ended: under way, or killed")
