"""End a run by hand, where nothing else can: its hosts on their baseline, what it has measured sealed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.runs import trial_times
from controller.adapters.inventory import read_inventory
from controller.adapters.store import Store, commits_of, forget_open_commits, record_result
from controller.model.commit import Commit
from controller.model.errors import FleetLocked, HostFailed, RatchetError
from controller.model.project import Project
from controller.model.run import RunPlan, RunResult, RunStatus
from controller.model.steps import RunEnded
from controller.model.trial import TrialResult
from controller.workflow.context import RunContext
from controller.workflow.fleet.rollback import roll_back_to_baseline
from controller.workflow.run.finalize import seal
from controller.workflow.run.optimize import BEFORE_FILE, kept_by
from controller.workflow.trial.evidence import SETTLED

BY_HAND = "ended by hand (controller end)"


def end_run(context: RunContext, run_id: str, started_at: str) -> RunResult:
    """Finish or take back the commit that it may have been at, roll back, and seal it. Raises HostFailed, FleetLocked.

    Hosts that cannot be shown to be on their baseline are named in its message, and its status is `unverified`.
    """
    status: RunStatus = "failed"
    message = BY_HAND
    left: dict[str, str] = {}
    try:
        left = roll_back_to_baseline(context)
    except FleetLocked:
        raise
    except RatchetError as error:
        status, message = "unverified", f"{BY_HAND}\n{error}"
        recorded = context.store.baselines(context.fleet.name)
        left = {host.name: recorded[host.name].configuration for host in context.fleet.hosts if host.name in recorded}
    kept, over = _kept(commits_of(context.store, run_id), left)
    if kept:
        message += f"\nkept on the hosts: {', '.join(kept)}"
    if over:
        message += f"\nkept, and replaced or undone since: {', '.join(over)}"
    folder = context.run_directory(run_id)
    result = _result(folder, run_id, context.fleet.name, started_at)
    before = _before(folder)
    update = {"status": status, "message": message, "baseline_before": before}
    kept_text = kept_by(context, run_id, before, left)
    return seal(context, RunEnded(result=result.model_copy(update=update), left=left, kept=kept_text))


def _kept(commits: list[Commit], now: dict[str, str]) -> tuple[list[str], list[str]]:
    """What of a run's commits hosts have, each with those before it; and what none has any more."""
    carried = [commit for commit in commits if commit.booked or (commit.forward and commit.begun)]
    there = [
        number
        for number, commit in enumerate(carried, 1)
        if commit.model_copy(update={"confirmed": _on(commit, now)}).begun
    ]
    words = [commit.why for commit in carried]
    last = max(there, default=0)
    return words[:last], words[last:]


def _on(commit: Commit, now: dict[str, str]) -> list[str]:
    return [host for host, configuration in commit.after.items() if now.get(host) == configuration]


def _before(folder: Path) -> dict[str, str]:
    """What the run found; nothing where that is not recorded: it cannot be gone back to then."""
    try:
        before = json.loads((folder / BEFORE_FILE).read_text())
        return {str(host): str(configuration) for host, configuration in before.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def end_without_fleet(
    project: Project, store: Store, run_id: str, fleet: str, *, started_at: str, why: str
) -> RunResult:
    """Seal a run whose fleet cannot be loaded. The caller holds the fleet. Raises HostFailed.

    Where it is gone (renamed, destroyed), there is no host left to put back. Where its files are damaged there may be:
    its status is `unverified` then. `why`: what loading it said.
    """
    folder = project.runs / run_id
    update: dict[str, Any] = {"message": f"{BY_HAND}; fleet {fleet} is gone, and no host was looked at: {why}"}
    may_have_hosts = _may_have_hosts(project, store, fleet)
    if may_have_hosts:
        update["status"] = "unverified"
        update["message"] = (
            f"{BY_HAND}; fleet {fleet} cannot be loaded, so no host was looked at (leases put back what is not "
            f"confirmed): {why}\n  next: mend that, then: controller rollback --fleet {fleet}"
        )
    update["baseline_before"] = _before(folder)
    result = _result(folder, run_id, fleet, started_at).model_copy(update=update)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostFailed(f"cannot be made: {error.strerror}", where=str(folder), next_step="mend that") from None
    if not may_have_hosts:
        forget_open_commits(store, fleet)
    write_atomically(folder / "verdict.json", result.model_dump_json(indent=1) + "\n")
    record_result(store, result, trial_times(project, run_id))
    return result


def _may_have_hosts(project: Project, store: Store, fleet: str) -> bool:
    """Unless its inventory names none and no host is on record: another checkout, or a link, may lead to them."""
    try:
        return bool(store.baselines(fleet) or read_inventory(project, fleet, variable_files=False).hosts)
    except (RatchetError, OSError):
        return True


def _result(folder: Path, run_id: str, fleet: str, started_at: str) -> RunResult:
    """What the run has settled, as far as its folder can be read."""
    plan = _read(RunPlan, folder / "plan.json")
    settled = [_read(TrialResult, path) for path in sorted(folder.glob(f"trials/*/{SETTLED}"))]
    return RunResult(
        run_id=run_id,
        fleet=fleet,
        seed=plan.seed if plan else 0,
        status="failed",
        started_at=started_at,
        seconds=0.0,
        trials=sorted((trial for trial in settled if trial), key=lambda trial: trial.trial),
        baseline_before={},
        baseline_after={},
        message=BY_HAND,
        strategy=plan.strategy if plan else "first-winner",
    )


def _read(model: Any, path: Path) -> Any:
    """None where it is not there, or damaged."""
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
