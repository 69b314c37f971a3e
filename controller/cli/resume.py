"""`controller resume [RUN]`: finish or safely revert what a killed controller left."""

from __future__ import annotations

import argparse
import sys

from controller.cli.run_setup import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", default=None, help="default: every unfinished run")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.store import Store, database_url
    from controller.cli.optimize import exit_code, show_result
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import find_project, open_context
    from controller.cli.running import carry_out, read_request
    from controller.model.errors import BadInput

    project = find_project(args)
    unfinished = Store(database_url(project)).unfinished()
    chosen = [row for row in unfinished if args.run in {None, row[0]}]
    if args.run and not chosen:
        known = ", ".join(row[0] for row in unfinished) or "none"
        raise BadInput(f"no unfinished run {args.run}", next_step=f"unfinished runs: {known}")
    if not chosen:
        print("nothing is unfinished", file=sys.stderr)
        return 0
    worst = 0
    for run_id, fleet, _ in chosen:
        args.fleet = fleet
        display = ProgressDisplay()
        with display:
            result = carry_out(open_context(args, display), read_request(project, run_id))
        show_result(result, as_json=args.output == "json")
        worst = max(worst, exit_code(result))
    return worst
