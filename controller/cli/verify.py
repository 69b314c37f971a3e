"""`controller verify RUN`: recompute every verdict from its CSVs and seed."""

from __future__ import annotations

import argparse
import json

from controller.cli.run_setup import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id, a unique beginning of it, or `last`")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.run_setup import find_project, named_run
    from controller.workflow.run.verify import verify_run

    project = find_project(args)
    document = verify_run(project, named_run(project, args.run))
    if args.output == "json":
        print(json.dumps(document))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("trial", "experiment", "recorded", "recomputed", "same", "note", box=None)
        for trial in document["trials"]:
            table.add_row(
                str(trial["trial"]),
                f"{trial['experiment']}/{trial['variant']}",
                trial["recorded"],
                trial["recomputed"],
                "yes" if trial["same"] else "NO",
                trial["note"],
            )
        console = Console()
        console.print(table)
        console.print(
            f"run {document['run_id']}: "
            + ("every verdict is the same" if document["same"] else "NOT every verdict is the same"),
            markup=False,
        )
    return 0 if document["same"] else 3
