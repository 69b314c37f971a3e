"""`controller end RUN`: give up a run that cannot be resumed: restore, and seal what it has measured."""

from __future__ import annotations

import argparse

from controller.cli.run_setup import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an unfinished run (controller runs lists them)")
    parser.add_argument(
        "--take-over", action="store_true", help="also one that another machine is carrying out: it is stopped"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.audit import ENDED_RUN
    from controller.adapters.store import Store, database_url
    from controller.cli.optimize import show_result
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import find_project, holding, listening, open_context, unfinished_rows
    from controller.cli.running import in_background
    from controller.workflow.ending import end_run, end_without_fleet

    project = find_project(args)
    store = Store(database_url(project))
    ((run_id, args.fleet, started_at),) = unfinished_rows(store, args.run)
    if project.inventory(args.fleet).is_dir():
        context = open_context(args, ProgressDisplay())
        said = "the hosts are being put back; that is finished first"
        with (
            listening(context.stop, said, said),
            context.accounted(
                "end", [host.name for host in context.fleet.hosts], f"give up run {run_id}", always=True
            ) as outcome,
            holding(context, run_id=run_id, since=context.now(), by_force=args.take_over) as held,
        ):
            result = in_background(lambda: end_run(held, run_id, started_at))
            outcome.evidence = {ENDED_RUN: run_id, "status": result.status}
            if result.status == "unverified":
                outcome.failed(result.message)
    else:
        result = end_without_fleet(project, store, run_id, args.fleet, started_at)
    show_result(result, as_json=args.output == "json")
    return 5 if result.status == "unverified" else 0
