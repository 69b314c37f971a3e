"""`controller status --fleet F`: what each host runs now."""

from __future__ import annotations

import argparse
import json

from controller.cli.run_setup import add_fleet_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import open_context
    from controller.workflow.fleet.status import fleet_status

    document = fleet_status(open_context(args, ProgressDisplay()))
    if args.output == "json":
        print(json.dumps(document))
    else:
        from rich.console import Console

        from controller.report.text import status_table

        Console().print(status_table(document))
    return 0 if all(host["healthy"] for host in document["hosts"]) else 3
