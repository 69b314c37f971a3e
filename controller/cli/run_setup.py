"""What the commands that work on a fleet share: find the project, open the store, hear the operator's Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.adapters.audit import Accounts
    from controller.adapters.store import FleetHold, Store
    from controller.model.events import Observer
    from controller.model.project import Project
    from controller.workflow.context import RunContext, StopSignal


def add_fleet_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleet", required=True, metavar="F", help="a folder of inventory/")


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=["text", "json"], default="text", help="json: one document on stdout")


def find_project(args: argparse.Namespace) -> Project:
    """The project named by --project, else the one around the working folder. Raises BadInput."""
    from controller.model.errors import BadInput
    from controller.model.project import Project

    try:
        return Project.find(args.project or Path.cwd())
    except (OSError, RuntimeError) as error:
        # RuntimeError: a link to itself.
        raise BadInput(
            f"is no folder to work in: {getattr(error, 'strerror', None) or error}",
            where=str(args.project or "the working folder"),
            next_step="cd to your project, or name it: controller --project DIR ...",
        ) from None


def open_store(project: Project) -> Store:
    """The project's database; says so when that has upgraded it. Raises BadInput."""
    from controller.adapters.store import Store, database_url

    store = Store(database_url(project))
    if store.upgraded:
        print(f"controller: {store.upgraded}", file=sys.stderr)
    return store


def utc_now() -> datetime:
    return datetime.now(UTC)


def _now() -> str:
    return utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")


def open_context(args: argparse.Namespace, observer: Observer) -> RunContext:
    """Everything a workflow needs from outside. Raises BadInput."""
    from controller.adapters.audit import AuditLog
    from controller.adapters.inventory import load_fleet, read_inventory
    from controller.model.events import Notice
    from controller.workflow.context import RunContext
    from controller.workflow.fleet.claims import Claims

    project = find_project(args)
    fleet = load_fleet(project, args.fleet)
    warnings = read_inventory(project, args.fleet).warnings
    if warnings:
        observer(Notice(level="warning", text=f"Ansible says of inventory/{fleet.name}: {warnings}"))
    store = open_store(project)
    return RunContext(
        project=project,
        fleet=fleet,
        store=store,
        audit=AuditLog(project, store),
        observer=observer,
        clock=utc_now,
        claims=Claims(),
    )


def unfinished_rows(store: Store, run_id: str | None) -> list[tuple[str, str, str]]:
    """(run_id, fleet, started_at) of that run, or of every unfinished one. Raises BadInput for one that is not."""
    from controller.model.errors import BadInput

    unfinished = store.unfinished()
    chosen = [row for row in unfinished if run_id in {None, row[0]}]
    if run_id is not None and not chosen:
        known = ", ".join(row[0] for row in unfinished) or "none"
        raise BadInput(f"no unfinished run {run_id}", next_step=f"unfinished runs: {known}")
    return chosen


def named_run(project: Project, reference: str) -> str:
    """What `last` means: the newest of the folders that are named as runs are. Any other reference as it is."""
    from controller.adapters.files.runs import LAST, RUN_ID, run_ids

    if reference != LAST:
        return reference
    return next((run_id for run_id in run_ids(project) if re.fullmatch(RUN_ID, run_id)), LAST)


def work_id(what: str) -> str:
    """The name under which a command other than optimize holds a fleet: `rollback-20261123-201500-3fa9`."""
    from controller.workflow.run.plan import new_run_id

    return new_run_id(_now(), secrets.randbits(64)).replace("r-", f"{what}-", 1)


@contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, and the terminal's end, end a command as Ctrl-C does: what it holds is given back, and its end is
    accounted for."""
    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def accounts_of(project: Project, fleet: str, store: Store, tell: Callable[[str], None]) -> Accounts:
    """The accounts of a fleet whose hosts may not exist yet."""
    from controller.adapters.audit import Accounts, AuditLog

    return Accounts(AuditLog(project, store), fleet, _now, tell)


@contextmanager
def holding_servers(
    project: Project,
    fleet: str,
    what: str,
    tell: Callable[[str], None],
    *,
    run_id: str | None = None,
    by_force: bool = False,
) -> Iterator[FleetHold]:
    """Hold a fleet whose hosts may not exist: this machine's lock and the database's row. Raises FleetLocked.

    `run_id`: the run that it is held for; None: for a work of its own, named after `what` is done.
    """
    from controller.adapters.store import FleetHold

    store, name = open_store(project), run_id or work_id(what)
    hold = FleetHold(project, store, fleet, run_id=name, since=_now(), lost=tell, tell=tell, by_force=by_force)
    with signals_as_ctrl_c(), hold:
        yield hold


@contextmanager
def holding(context: RunContext, *, run_id: str, since: str, by_force: bool = False) -> Iterator[RunContext]:
    """Hold the fleet: this machine's lock, the database's row, and a claim on every host; gives the context for it.

    Who loses the fleet to another run is asked to stop. Raises FleetLocked, with nothing held.
    """
    import dataclasses

    from controller.adapters.store import FleetHold
    from controller.model.events import Notice
    from controller.workflow.fleet.claims import Claims

    def lost(why: str, *, taken_over: bool = True) -> None:
        context.observer(Notice(level="warning", text=f"{why}; stopping"))
        context.stop.request(why, taken_over=taken_over)

    def tell(text: str) -> None:
        context.observer(Notice(text=text))

    hold = FleetHold(
        context.project,
        context.store,
        context.fleet.name,
        run_id=run_id,
        since=since,
        lost=lambda why: lost(why, taken_over=hold.taken_over),
        tell=tell,
        by_force=by_force,
    )
    with signals_as_ctrl_c(), hold:
        fleet = context.fleet
        claims = Claims(
            fleet.hosts, fleet=fleet.name, run_id=run_id, generation=hold.generation, holder=hold.name, lost=lost
        )
        with claims.held(by_force=by_force):
            yield dataclasses.replace(context, claims=claims)


@contextmanager
def listening(
    stop: StopSignal,
    first: str = "finishing this block, then putting the baseline back (again to do it now)",
    again: str = "putting the baseline back now",
    *,
    instead: Callable[[], str] = lambda: "",
) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask the work to stop: once, and more than once; what is said then must be so.

    Where the terminal's end is to be ignored (nohup), it still is.

    `instead`: asked what to say in place of that; empty where that is so. What it raises ends the work at once.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        count = stop.request()
        text = instead() or (first if count == 1 else again)
        if stop.committing:
            text = "the hosts are confirming the change; that is finished first"
            text += " (again to wait for no host that is away)" if count == 1 else ""
        # The handler may have interrupted a write to the same stream.
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            print(f"\n{text}", file=sys.stderr, flush=True)

    asking = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asking.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in asking}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
