"""`controller history`: past runs and their verdicts, newest first."""

from __future__ import annotations

import argparse
import json
import sys

from controller.cli.run_setup import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleet", default=None, metavar="F", help="only runs of this fleet (default: all)")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.files.fleet import load_settings
    from controller.adapters.files.runs import list_runs, run_ids
    from controller.cli.run_setup import find_project
    from controller.report.history import history_rows

    project = find_project(args)
    if args.fleet is not None:
        load_settings(project, args.fleet)
    rows = history_rows(list_runs(project))
    unread = sorted(set(run_ids(project)) - {row["run_id"] for row in rows})
    rows = [row for row in rows if args.fleet in {None, row["fleet"]}]
    if args.output == "json":
        print(json.dumps({"runs": rows}))
    else:
        from rich.console import Console

        from controller.report.text import history_table

        Console(highlight=False).print(history_table(rows))
    for run_id in unread:
        print(f"controller: {run_id} is not listed; what is wrong with it: controller show {run_id}", file=sys.stderr)
    return 0
