"""`controller audit [show|verify]`: who did what to which host, and whether the log is whole."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_output_argument
from controller.model.errors import printable

if TYPE_CHECKING:
    from controller.adapters.audit import AuditLog


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
    from controller.adapters.store import Store, database_url
    from controller.cli.run_setup import find_project

    project = find_project(args)
    log = AuditLog(project, Store(database_url(project)))
    return _verify(log, args.output) if args.what == "verify" else _show(log, args.output)


def _show(log: AuditLog, output: str) -> int:
    for entry in log.entries():
        if output == "json":
            print(json.dumps(entry))
        else:
            told = f"{entry['at']}  {entry['who']}  {entry['action']}  {', '.join(entry['hosts'])}: {entry['why']}"
            print(printable(told))
    return 0


def _verify(log: AuditLog, output: str) -> int:
    findings = log.verify()
    if output == "json":
        print(json.dumps({"whole": not findings, "findings": [finding.__dict__ for finding in findings]}))
    elif findings:
        for finding in findings:
            print(f"line {finding.line}: {finding.what}" if finding.line else finding.what)
    else:
        print(f"the audit log is whole: {sum(1 for _ in log.entries())} entries")
    return 3 if findings else 0
