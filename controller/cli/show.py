"""`controller show RUN`: one run in full."""

from __future__ import annotations

import argparse
import json

from controller.cli.run_setup import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id, a unique beginning of it, or `last`")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.files.runs import read_run
    from controller.cli.run_setup import find_project

    plan, result = read_run(find_project(args), args.run)
    if args.output == "json":
        documents = {
            "run_id": plan.run_id,
            "plan": plan.model_dump(mode="json"),
            "result": None if result is None else result.model_dump(mode="json"),
        }
        print(json.dumps(documents))
        return 0
    from rich.console import Console

    from controller.report.text import run_text

    Console(highlight=False).print(run_text(plan, result))
    return 0
