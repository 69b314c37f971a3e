"""The sealed runs in `runs/`: the documents there are the truth, the store only indexes them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from controller.adapters.files.suggestions import did_you_mean
from controller.model.errors import BadInput
from controller.model.project import Project
from controller.model.run import RunPlan, RunResult
from controller.model.trial import TrialPlan

LAST = "last"
# As workflow/run/plan.py draws them; whatever else lies in runs/ (a copy, a folder of the operator's) is none.
RUN_ID = "r-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}"

Model = TypeVar("Model", bound=BaseModel)


def run_ids(project: Project) -> list[str]:
    """Ids of all runs, newest first: an id begins with its time."""
    folder = project.runs
    if not folder.is_dir():
        return []
    return sorted(
        (entry.name for entry in folder.iterdir() if (entry.is_dir() and entry.name[:1] != ".")), reverse=True
    )


def list_runs(project: Project) -> list[tuple[RunPlan | None, RunResult | None]]:
    """Newest first. No plan: the run failed before it was planned. No result: it was never sealed.

    A damaged run is left out, so that one bad file never hides the others; `read_run` says what is wrong with it.
    """
    found: list[tuple[RunPlan | None, RunResult | None]] = []
    for run_id in run_ids(project):
        try:
            pair = read_documents(project, run_id)
        except BadInput:
            continue
        if pair != (None, None):
            found.append(pair)
    return found


def read_documents(project: Project, run_id: str) -> tuple[RunPlan | None, RunResult | None]:
    """Plan and result of the run of exactly that id; None where there is none. Raises BadInput when one is damaged."""
    folder = project.runs / run_id
    return _read(RunPlan, folder / "plan.json"), _read(RunResult, folder / "verdict.json")


def read_run(project: Project, reference: str) -> tuple[RunPlan, RunResult | None]:
    """One run by its id, a unique beginning of it, or `last`; no result when it was never sealed.

    Raises BadInput: unknown, ambiguous, damaged, or it failed before it was planned.
    """
    run_id = resolve(project, reference)
    folder = project.runs / run_id
    plan, result = read_documents(project, run_id)
    if plan is None:
        ended = f": it {result.status}: {result.message}" if result is not None else ""
        raise BadInput(
            f"run {run_id} has no plan, so nothing was measured{ended}",
            where=str(folder),
            next_step="look at its log.jsonl and controller.log, then run the experiment again",
        )
    return plan, result


def recorded_trials(project: Project, plan: RunPlan, numbers: list[int]) -> list[TrialPlan]:
    """The run's trials as planned; those of `numbers` as they were measured: calibrated, or found by a search."""
    found = {trial.number: trial for trial in plan.trials}
    for number in numbers:
        recorded = _read(TrialPlan, project.runs / plan.run_id / "trials" / str(number) / "plan.json")
        if recorded is not None:
            found[number] = recorded
    return [found[number] for number in sorted(found)]


def trial_times(project: Project, run_id: str) -> dict[int, tuple[str, str]]:
    """Trial -> when its probing began and when it was last told of, by the run's log; empty where that is gone."""
    found: dict[int, tuple[str, str]] = {}
    with contextlib.suppress(OSError), (project.runs / run_id / "log.jsonl").open("rb") as log:
        for line in log:
            # A line may be broken off: the controller died, or the disk was full.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                event = json.loads(line)
                told = event["plan"]["number"] if "plan" in event else event.get("trial") or event["result"]["trial"]
                found[told] = (found.get(told, (event["at"], ""))[0], event["at"])
    return found


def resolve(project: Project, reference: str) -> str:
    """The id that a reference means. Raises BadInput."""
    known = run_ids(project)
    if reference == LAST and known:
        return known[0]
    if reference in known:
        return reference
    matching = [run_id for run_id in known if reference and run_id.startswith(reference)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise BadInput(
            f"{reference!r} is the beginning of {len(matching)} runs",
            where=str(project.runs),
            next_step=f"which one: {', '.join(matching[:5])}?",
        )
    raise BadInput(
        f"unknown run {reference!r}",
        where=str(project.runs),
        next_step=f"{did_you_mean(reference, known[:20], what='run')}; all of them: controller history"
        if known
        else "there is no run yet: controller optimize --fleet F",
    )


def _read(model: type[Model], path: Path) -> Model | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        raise BadInput(
            f"is damaged: {field + ': ' if field else ''}{first['msg']}",
            where=str(path),
            next_step="restore the file from a copy; a run's documents are never edited",
        ) from None
