"""`controller verify RUN`: recompute every verdict from its CSVs and seed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from controller.cli.run_setup import add_output_argument

# Nothing was found wrong, and nothing can be recomputed.
CANNOT_BE_ASKED = 2


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
                "yes" if trial["same"] else "-" if trial["pruned"] else "NO",
                trial["note"],
            )
        console = Console()
        console.print(table)
        console.print(f"run {document['run_id']}: {_words(document)}", markup=False)
    return _exit_code(document)


def _words(document: dict[str, Any]) -> str:
    if document["same"]:
        return "every verdict is the same"
    if _exit_code(document) == CANNOT_BE_ASKED:
        return (
            f"its evidence was pruned on {document['pruned'][:10]} by controller prune, so its verdicts cannot be "
            f"recomputed; as they were recorded: controller show {document['run_id']}"
        )
    return "NOT every verdict is the same"


def _exit_code(document: dict[str, Any]) -> int:
    """Of a run that is partly pruned, what is left must be the same."""
    if document["same"]:
        return 0
    left = [trial for trial in document["trials"] if not trial["pruned"]]
    return CANNOT_BE_ASKED if all(trial["same"] for trial in left) else 3
