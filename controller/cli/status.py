"""`controller status --fleet F`: what each host runs now."""

from __future__ import annotations

import argparse
import json

from controller.cli.run_setup import add_fleet_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.store import Store, database_url
    from controller.cli.run_setup import find_project
    from controller.workflow.status import fleet_status

    project = find_project(args)
    from controller.adapters.files.fleet import load_fleet

    document = fleet_status(load_fleet(project, args.fleet), Store(database_url(project)))
    if args.output == "json":
        print(json.dumps(document))
    else:
        from rich.console import Console

        from controller.report.text import status_table

        Console().print(status_table(document))
    return 0 if all(host["healthy"] for host in document["hosts"]) else 3
