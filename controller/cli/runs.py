"""`controller runs`: what is unfinished, where it stopped, and what to type."""

from __future__ import annotations

import argparse
import json

from controller.cli.run_setup import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.run_setup import find_project, open_store
    from controller.workflow.run.unfinished import unfinished_runs

    project = find_project(args)
    runs = unfinished_runs(project, open_store(project))
    if args.output == "json":
        print(json.dumps(runs))
        return 0
    for unfinished in runs:
        state = "is under way" if unfinished["alive"] else "was broken off"
        print(f"{unfinished['run_id']} on {unfinished['fleet']}, started {unfinished['started_at']}: {state}")
        print(f"  last: {unfinished['last'] or 'nothing recorded'}")
        if not unfinished["alive"]:
            print(f"  next: controller resume {unfinished['run_id']}")
    if not runs:
        print("nothing is unfinished")
    return 0
