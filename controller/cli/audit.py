"""`controller audit [show|verify]`: who did what to which host, and whether the log is whole."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_output_argument
from controller.model.errors import printable

if TYPE_CHECKING:
    from controller.adapters.audit import AuditLog, Entry, Finding

NOT_ENDED = "not ended: under way, or its controller was killed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=["show", "verify"],
        default="show",
        help="verify: find any edit, deletion, reordering",
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.audit import AuditLog
    from controller.cli.run_setup import find_project, open_store

    project = find_project(args)
    log = AuditLog(project, open_store(project))
    return _verify(log, args.output) if args.what == "verify" else _show(log, args.output)


def _show(log: AuditLog, output: str) -> int:
    from controller.adapters.audit import not_ended

    entries = log.entries()
    missing = not_ended(entries)
    if output == "json":
        print(json.dumps({"entries": entries, "not_ended": sorted(missing)}))
        return 0
    for entry in entries:
        # What a host has said may have line ends in it, and is none of our lines.
        print(printable(_line(entry, ended=entry["number"] not in missing).replace("\n", "\\n")))
    return 0


def _line(entry: Entry, *, ended: bool) -> str:
    """`AT  WHO  7 rollback begun  web-1, web-2: why`; the end of a change names the number of its beginning."""
    did = f"{entry['number']} {entry['action']} {entry.get('state', '')}".rstrip()
    did += f" (of {entry['began']})" if "began" in entry else ""
    did += "" if ended else f" ({NOT_ENDED})"
    return f"{entry['at']}  {entry['who']}  {did}  {', '.join(entry['hosts'])}: {entry['why']}"


def _verify(log: AuditLog, output: str) -> int:
    seen = log.verify()
    if output == "json":
        told = {
            "whole": not seen.findings,
            "entries": seen.entries,
            "findings": [finding.__dict__ for finding in seen.findings],
            "notes": [note.__dict__ for note in seen.notes],
        }
        print(json.dumps(told))
    else:
        for finding in seen.findings:
            print(_told(finding))
        for note in seen.notes:
            print(f"note: {_told(note)}")
        if not seen.findings:
            print(f"the audit log is whole: {seen.entries} entries")
    return 3 if seen.findings else 0


def _told(finding: Finding) -> str:
    return printable(f"line {finding.line}: {finding.what}" if finding.line else finding.what)
