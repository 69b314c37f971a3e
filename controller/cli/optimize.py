"""`controller optimize`: run experiments on a fleet."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_fleet_argument, add_output_argument

if TYPE_CHECKING:
    from controller.model.experiment import Experiment
    from controller.model.run import Budget, RunResult

EXIT_OF_STATUS = {"completed": 0, "failed": 3, "taken-over": 4, "unverified": 5, "interrupted": 130}
EXIT_QUARANTINED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    parser.add_argument(
        "--experiment", action="append", metavar="E", help="a folder of experiments/; may be repeated (default: all)"
    )
    parser.add_argument(
        "--strategy",
        choices=["first-winner", "race", "bayes"],
        default="first-winner",
        help="first-winner: variants in order until one is proven; race: all at once, the field halved round by round; "
        "bayes: search experiments that have ranges (default: first-winner)",
    )
    parser.add_argument("--budget-minutes", type=float, metavar="M", help="bayes: minutes of searching (default: 20)")
    parser.add_argument("--budget-trials", type=int, metavar="N", help="bayes: settings to try (default: 40)")
    parser.add_argument(
        "--least-progress",
        type=float,
        metavar="P",
        help="bayes: percent of gain a minute below which it stops (default: 0.05; 0: never)",
    )
    parser.add_argument(
        "--adopt", action="store_true", help="make edits by hand that stand on the hosts part of the baseline first"
    )
    parser.add_argument("--dry-run", action="store_true", help="print plan, diffs and duration; change nothing")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="fix the random order (default: drawn)")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.files.experiments import load_experiments
    from controller.adapters.files.parameters import check_parameters
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import open_context
    from controller.workflow.trial.plan import check_fleet_design

    display = ProgressDisplay()
    context = open_context(args, display)
    experiments = _of_strategy(load_experiments(context.project, args.experiment), args)
    budget = _budget(args)
    check_fleet_design(context.fleet, experiments, args.strategy)
    for experiment in experiments:
        check_parameters(context.project, experiment)
    seed = args.seed if args.seed is not None else secrets.randbelow(2**31)
    if args.dry_run:
        from controller.cli.dry_run import print_dry_run

        return print_dry_run(context, experiments, seed, args.strategy, budget, as_json=args.output == "json")

    from controller.cli.running import carry_out
    from controller.model.steps import RunRequest
    from controller.workflow.run.plan import new_run_id

    started_at = context.now()
    request = RunRequest(
        run_id=new_run_id(started_at, secrets.randbits(64)),
        fleet=context.fleet.name,
        seed=seed,
        started_at=started_at,
        strategy=args.strategy,
        adopt=args.adopt,
        budget=budget,
        experiments=experiments,
    )
    with display:
        result = carry_out(context, request)
    show_result(result, as_json=args.output == "json")
    return exit_code(result)


def exit_code(result: RunResult) -> int:
    """A run that completed without some of its hosts is not all well: the message names them."""
    return EXIT_QUARANTINED if result.status == "completed" and result.quarantined else EXIT_OF_STATUS[result.status]


def _of_strategy(experiments: list[Experiment], args: argparse.Namespace) -> list[Experiment]:
    """The experiments that the strategy can run. Raises BadInput for a named one that it cannot."""
    from controller.model.errors import BadInput
    from controller.model.experiment import GoalsObjective

    wants_ranges = args.strategy == "bayes"
    if wants_ranges:
        from controller.search.draws import require_optuna

        require_optuna()
    fitting = [experiment for experiment in experiments if bool(experiment.ranges) == wants_ranges]
    if args.experiment and len(fitting) < len(experiments):
        other = next(experiment.name for experiment in experiments if experiment not in fitting)
        raise BadInput(
            f"experiment {other} gives {'variants' if wants_ranges else 'ranges'}: not for --strategy {args.strategy}",
            next_step="--strategy race or first-winner" if wants_ranges else "--strategy bayes searches it",
        )
    for experiment in fitting:
        if args.strategy == "race" and isinstance(experiment.objective, GoalsObjective):
            raise BadInput(
                f"experiment {experiment.name} judges each goal by itself ({experiment.objective.combine}): "
                "a race ranks its variants by one number",
                next_step="--strategy first-winner, or a weighted objective",
            )
    if not fitting:
        raise BadInput(
            f"no experiment gives {'ranges' if wants_ranges else 'variants'}",
            next_step="controller experiments list shows which there are",
        )
    return fitting


def _budget(args: argparse.Namespace) -> Budget:
    """Raises BadInput."""
    from pydantic import ValidationError

    from controller.model.errors import BadInput
    from controller.model.run import Budget

    given = {
        "minutes": args.budget_minutes,
        "trials": args.budget_trials,
        "least_progress": None if args.least_progress is None else args.least_progress / 100,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and args.strategy != "bayes":
        raise BadInput("a budget is for --strategy bayes only", next_step="leave the --budget options out")
    try:
        return Budget.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = {"minutes": "--budget-minutes", "trials": "--budget-trials"}.get(
            str(first["loc"][0]), "--least-progress"
        )
        raise BadInput(f"{option}: {first['msg'].lower()}", next_step="controller optimize --help") from None


def show_result(result: RunResult, *, as_json: bool) -> None:
    """The verdicts on stdout: one JSON document, or a table with what to do next."""
    if as_json:
        print(result.model_dump_json())
    else:
        from rich.console import Console

        from controller.report.text import search_text, verdict_table

        console = Console()
        console.print(verdict_table(result))
        for search in result.searches:
            console.print(search_text(search))
        console.print(
            f"run {result.run_id} (seed {result.seed}): {result.status} in {result.seconds:.0f} s", markup=False
        )
        console.print(f"report: runs/{result.run_id}/report.html   check it: controller verify {result.run_id}")
    if result.status != "completed" or result.quarantined:
        print(f"controller: {result.message}", file=sys.stderr)
