"""`controller experiments list|check|schema`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_output_argument
from controller.model.errors import printable

if TYPE_CHECKING:
    from controller.model.errors import BadInput
    from controller.model.experiment import Experiment
    from controller.model.project import Project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_output_argument(actions.add_parser("list", help="name, question, variants and risk of each"))
    check = actions.add_parser("check", help="validate their files and parameters; all problems at once")
    check.add_argument("names", metavar="NAME", nargs="*", help="a folder of experiments/ (default: all)")
    actions.add_parser("schema", help="the JSON schema of meta.json")


def run(args: argparse.Namespace) -> int:
    if args.action == "schema":
        return _schema()
    from controller.cli.run_setup import find_project

    project = find_project(args)
    return _check(project, args.names) if args.action == "check" else _list(project, as_json=args.output == "json")


def _schema() -> int:
    from controller.report.schema import experiment_schema

    print(json.dumps(experiment_schema(), indent=1))
    return 0


def _list(project: Project, *, as_json: bool) -> int:
    """List what can be read; what cannot is told on stderr, with exit code 2."""
    from controller.adapters.files.experiments import shipped_names

    good, bad = _read(project, _names(project, []))
    more = shipped_names(project)
    if as_json:
        rows = [
            {
                "name": experiment.name,
                "question": experiment.question,
                "variants": [variant.name for variant in experiment.variants],
                "ranges": list(experiment.ranges),
                "risk": experiment.risk.level,
            }
            for experiment in good
        ]
        print(json.dumps({"experiments": rows, "shipped": more}))
    else:
        from rich.console import Console

        from controller.report.text import experiments_table

        console = Console(highlight=False)
        console.print(experiments_table(good))
        if more:
            console.print(f"shipped with Ratchet, run when named: {', '.join(more)}", markup=False)
    for problem in bad.values():
        print(f"controller: {problem}", file=sys.stderr)
    return 2 if bad else 0


def _check(project: Project, names: list[str]) -> int:
    good, bad = _read(project, _names(project, names))
    for experiment in good:
        count, what = (len(experiment.ranges), "range") if experiment.ranges else (len(experiment.variants), "variant")
        print(f"{experiment.name}: ok, {count} {what}{'s' * (count != 1)}")
    for name, problem in bad.items():
        print(printable(f"{name}: BAD: {problem.where}: {problem.what}; {problem.next_step}"))
    return 2 if bad else 0


def _names(project: Project, names: list[str]) -> list[str]:
    """The named experiments, or all. Raises BadInput when there are none."""
    from controller.adapters.files.experiments import experiment_names
    from controller.model.errors import BadInput

    chosen = list(dict.fromkeys(names)) or experiment_names(project)
    if not chosen:
        raise BadInput(
            "there are no experiments",
            where=str(project.experiments),
            next_step="copy one there, or see `controller experiments schema` for what a meta.json holds",
        )
    return chosen


def _read(project: Project, names: list[str]) -> tuple[list[Experiment], dict[str, BadInput]]:
    """Each experiment alone, so that one bad file does not hide the others."""
    from controller.adapters.files.experiments import load_experiments
    from controller.adapters.files.parameters import check_parameters
    from controller.model.errors import BadInput

    good: list[Experiment] = []
    bad: dict[str, BadInput] = {}
    for name in names:
        try:
            (experiment,) = load_experiments(project, [name])
            check_parameters(project, experiment)
            good.append(experiment)
        except BadInput as error:
            bad[name] = error
    return good, bad
