"""`controller optimize`: run experiments on a fleet."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING, Any

from controller.cli.run_setup import add_fleet_argument, add_output_argument

if TYPE_CHECKING:
    from controller.model.run import RunResult

EXIT_OF_STATUS = {"completed": 0, "failed": 3, "unverified": 5, "interrupted": 130}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    parser.add_argument(
        "--experiment", action="append", metavar="E", help="a folder of experiments/; may be repeated (default: all)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print plan, diffs and duration; touch nothing")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="fix the random order (default: drawn)")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.files.experiments import load_experiments
    from controller.adapters.files.parameters import check_parameters
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import open_context

    display = ProgressDisplay()
    context = open_context(args, display)
    experiments = load_experiments(context.project, args.experiment)
    for experiment in experiments:
        check_parameters(context.project, experiment)
    seed = args.seed if args.seed is not None else secrets.randbelow(2**31)
    if args.dry_run:
        from controller.cli.dry_run import print_dry_run

        return print_dry_run(context, experiments, seed, as_json=args.output == "json")

    from controller.cli.running import carry_out
    from controller.workflow.planning import new_run_id

    started_at = context.now()
    request: dict[str, Any] = {
        "run_id": new_run_id(started_at, secrets.randbits(64)),
        "fleet": context.fleet.name,
        "seed": seed,
        "started_at": started_at,
        "experiments": [experiment.model_dump(mode="json") for experiment in experiments],
    }
    with display:
        result = carry_out(context, request)
    show_result(result, as_json=args.output == "json")
    return EXIT_OF_STATUS[result.status]


def show_result(result: RunResult, *, as_json: bool) -> None:
    """The verdicts on stdout: one JSON document, or a table with what to do next."""
    if as_json:
        print(result.model_dump_json())
    else:
        from rich.console import Console

        from controller.report.text import verdict_table

        console = Console()
        console.print(verdict_table(result))
        console.print(
            f"run {result.run_id} (seed {result.seed}): {result.status} in {result.seconds:.0f} s", markup=False
        )
        console.print(f"report: runs/{result.run_id}/report.html   check it: controller verify {result.run_id}")
    if result.status != "completed":
        print(f"controller: {result.message}", file=sys.stderr)
