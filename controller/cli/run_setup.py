"""What the commands that work on a fleet share: find the project, open the store, hear the operator's Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.model.events import Observer
    from controller.model.project import Project
    from controller.workflow.context import RunContext, StopSignal


def add_fleet_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleet", required=True, metavar="F", help="a folder of inventory/")


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=["text", "json"], default="text", help="json: one document on stdout")


def find_project(args: argparse.Namespace) -> Project:
    """The project named by --project, else the one around the working folder. Raises BadInput."""
    from controller.model.project import Project

    return Project.find(args.project or Path.cwd())


def utc_now() -> datetime:
    return datetime.now(UTC)


def open_context(args: argparse.Namespace, observer: Observer) -> RunContext:
    """Everything a workflow needs from outside. Raises BadInput."""
    from controller.adapters.audit import AuditLog
    from controller.adapters.files.fleet import load_fleet
    from controller.adapters.store import Store, database_url
    from controller.workflow.context import RunContext

    project = find_project(args)
    fleet = load_fleet(project, args.fleet)
    store = Store(database_url(project))
    return RunContext(
        project=project,
        fleet=fleet,
        store=store,
        audit=AuditLog(project, store),
        observer=observer,
        clock=utc_now,
    )


@contextmanager
def listening(stop: StopSignal) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to stop: once, after this block; twice, now."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.request() == 1:
            text = "\nfinishing this block, then putting the baseline back (again to do it now)"
        else:
            text = "\nputting the baseline back now"
        print(text, file=sys.stderr, flush=True)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
