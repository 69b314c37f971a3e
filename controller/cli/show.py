"""`controller show RUN`: one run in full."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_output_argument

if TYPE_CHECKING:
    from controller.model.commit import Commit
    from controller.model.project import Project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id, a unique beginning of it, or `last`")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.files.runs import read_run, recorded_trials
    from controller.cli.logs import NAME
    from controller.cli.run_setup import find_project, named_run

    project = find_project(args)
    plan, result = read_run(project, named_run(project, args.run))
    if result is not None:
        trials = recorded_trials(project, plan, [trial.trial for trial in result.trials])
        plan = plan.model_copy(update={"trials": trials})
    commits = _commits(project, plan.run_id)
    log = f"runs/{plan.run_id}/{NAME}"
    is_logged = (project.root / log).is_file()
    if args.output == "json":
        documents = {
            "run_id": plan.run_id,
            "plan": plan.model_dump(mode="json"),
            "result": None if result is None else result.model_dump(mode="json"),
            "commits": [commit.model_dump(mode="json") for commit in commits],
            "log": log if is_logged else None,
        }
        print(json.dumps(documents))
        return 0
    from rich.console import Console

    from controller.report.text import run_text

    console = Console(highlight=False)
    console.print(run_text(plan, result, commits))
    if is_logged:
        console.print(f"log: {log}", markup=False)
    return 0


def _commits(project: Project, run_id: str) -> list[Commit]:
    """What the run has begun to commit, as it stands now; the run can be read without."""
    from controller.adapters.store import commits_of
    from controller.cli.run_setup import open_store
    from controller.model.errors import RatchetError

    try:
        return commits_of(open_store(project), run_id)
    except RatchetError as error:
        print(f"what became of its commits is not known: {error}", file=sys.stderr)
        return []
