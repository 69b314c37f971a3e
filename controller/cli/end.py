"""`controller end RUN`: give up a run that cannot be resumed: restore, and seal what it has measured."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_output_argument

if TYPE_CHECKING:
    from controller.adapters.audit import Outcome
    from controller.adapters.store import Store
    from controller.cli.progress import ProgressDisplay
    from controller.model.project import Project
    from controller.model.run import RunResult
    from controller.workflow.context import RunContext


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an unfinished run (controller runs lists them)")
    parser.add_argument(
        "--take-over", action="store_true", help="also one that another machine is carrying out: it is stopped"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.optimize import show_result
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import find_project, open_context, open_store, unfinished_rows
    from controller.model.errors import BadInput

    display, store = ProgressDisplay(), open_store(find_project(args))
    ((run_id, args.fleet, _),) = unfinished_rows(store, args.run)
    try:
        context = open_context(args, display)
    except BadInput as error:
        if _names_hosts(find_project(args), args.fleet):
            raise  # its hosts are known: what keeps them from being put back can be mended
        result = _without_fleet(args, store, run_id, error.what, display)
    else:
        result = _with_fleet(args, context, run_id)
    show_result(result, as_json=args.output == "json")
    return 5 if result.status == "unverified" else 0


def _names_hosts(project: Project, fleet: str) -> bool:
    """Whether the inventory can be read, as far as its hosts go, and names one."""
    from controller.adapters.inventory import read_inventory
    from controller.model.errors import BadInput

    try:
        return bool(read_inventory(project, fleet, variable_files=False).hosts)
    except BadInput:
        return False


def _with_fleet(args: argparse.Namespace, context: RunContext, run_id: str) -> RunResult:
    from controller.cli.run_setup import holding, listening
    from controller.cli.running import DatabaseWatch, in_background
    from controller.workflow.run.end import end_run

    said = "the hosts are being put back; that is finished first"
    hosts = [host.name for host in context.fleet.hosts]
    with (
        listening(context.stop, said, said),
        context.accounted("end", hosts, f"give up run {run_id}", always=True) as outcome,
        holding(context, run_id=run_id, since=context.now(), by_force=args.take_over) as held,
    ):
        started_at = _still_unfinished(context.store, run_id)
        lost = DatabaseWatch(context.store, again=f"controller end {run_id}").lost
        result = in_background(lambda: end_run(held, run_id, started_at), lost)
        _account(outcome, result)
    return result


def _without_fleet(
    args: argparse.Namespace, store: Store, run_id: str, why: str, display: ProgressDisplay
) -> RunResult:
    """A run whose fleet is not here any more, or cannot be read: it may still be somebody's, with a host or without."""
    from controller.cli.run_setup import accounts_of, find_project, holding_servers
    from controller.cli.running import DatabaseWatch, in_background
    from controller.model.events import Notice
    from controller.workflow.run.end import end_without_fleet

    project = find_project(args)

    def tell(text: str) -> None:
        display(Notice(level="warning", text=text))

    with (
        accounts_of(project, args.fleet, store, tell).account(
            "end", [], f"give up run {run_id}; no host was looked at: {why}", always=True
        ) as outcome,
        holding_servers(project, args.fleet, "end", tell, run_id=run_id, by_force=args.take_over),
    ):
        started_at = _still_unfinished(store, run_id)
        lost = DatabaseWatch(store, again=f"controller end {run_id}").lost
        result = in_background(
            lambda: end_without_fleet(project, store, run_id, args.fleet, started_at=started_at, why=why), lost
        )
        _account(outcome, result)
    return result


def _still_unfinished(store: Store, run_id: str) -> str:
    """When it was begun. Raises BadInput when whoever had the fleet until now has sealed it."""
    from controller.cli.run_setup import unfinished_rows

    ((_, _, started_at),) = unfinished_rows(store, run_id)
    return started_at


def _account(outcome: Outcome, result: RunResult) -> None:
    from controller.adapters.audit import ENDED_RUN

    outcome.evidence = {ENDED_RUN: result.run_id, "status": result.status}
    if result.status == "unverified":
        outcome.failed(result.message)
