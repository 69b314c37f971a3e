"""Carry a verdict out, and verify that it was carried out: commit a KEEP everywhere, roll a REVERT back."""

from __future__ import annotations

import json
import time
from typing import Any

from controller.adapters.files.kept import read_kept, write_kept
from controller.model.errors import HandEdited, HostFailed
from controller.model.events import StepStarted, TrialSettled
from controller.model.trial import TrialPlan, TrialResult
from controller.workflow.context import RunContext
from controller.workflow.hosts import edited_on_baseline, hand_edited, verify_baseline
from controller.workflow.staging import commit, roll_back


def settle(
    context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult, baseline: dict[str, str]
) -> dict[str, Any]:
    """Returns `{"result": TrialResult document, "baseline": host -> id, "stop": None | {"status", "message"}}`.

    Safe to run twice: committing or rolling back what is already so changes nothing.
    Raises RestoreUnverified when the baseline cannot be shown to be live, FleetLocked.
    """
    started = time.monotonic()
    edits = edited_on_baseline(context.fleet, baseline) if result.verdict == "KEEP" else {}
    if edits:
        # A commit would make the edits the baseline; that is the operator's to say.
        result = result.model_copy(
            update={"verdict": "REVERT", "reason": "host-failed", "note": hand_edited(context.fleet.name, edits).what}
        )
    stop: dict[str, str] | None = None
    if result.verdict == "KEEP":
        try:
            baseline = _keep(context, run_id, trial, result)
            text = f"kept on {len(baseline)} hosts, verified"
        except HostFailed as error:
            context.observer(StepStarted(text="the commit failed; putting the baseline back"))
            commit(context, {}, sorted(baseline))
            verify_baseline(context.fleet, baseline)
            result = result.model_copy(
                update={"verdict": "REVERT", "reason": "commit-failed", "note": f"{error.where}: {error.what}"}
            )
            text = "the commit failed; baseline restored and verified"
    else:
        context.observer(StepStarted(text=f"trial {trial.number}: rolling back and verifying"))
        text = "baseline restored and verified"
        try:
            roll_back(context, baseline)
        except HandEdited as error:
            text = f"baseline live; {error.what}"
            stop = {"status": "failed", "message": f"trial {result.trial}: {error}"}
    context.account(
        "commit" if result.verdict == "KEEP" else "rollback",
        sorted(baseline),
        f"{result.experiment}/{result.variant}: {result.verdict} {result.reason}; {text}",
        {
            "run": run_id,
            "trial": result.trial,
            "evidence": result.evidence,
            "pairs": result.pairs,
            "baseline": baseline,
        },
    )
    result = result.model_copy(update={"seconds": round(result.seconds + time.monotonic() - started, 3)})
    context.observer(TrialSettled(trial=trial.number, text=text))
    return {"result": json.loads(result.model_dump_json()), "baseline": baseline, "stop": stop or _stop(result)}


def _keep(context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult) -> dict[str, str]:
    """Commit on every host of the fleet, write the kept parameters into the inventory, record the new baselines.

    Until the parameters are written, the inventory still renders to the old baseline, so that a failed commit is
    undone by committing the inventory.
    """
    context.observer(StepStarted(text=f"trial {trial.number}: committing on every host"))
    hosts = [host.name for host in context.fleet.hosts]
    kept = read_kept(context.project, context.fleet.name) | trial.variant.parameters
    confirmed = commit(context, kept, hosts)
    verify_baseline(context.fleet, confirmed)
    effect = result.confirmed_effect or result.effect
    write_kept(
        context.project,
        context.fleet.name,
        parameters=dict(trial.variant.parameters),
        run_id=run_id,
        experiment=f"{trial.experiment.name}/{trial.variant.name}",
        effect="" if effect is None else f"{result.objective} {effect.estimate:+.1%} better",
    )
    for host, configuration in confirmed.items():
        context.store.record_baseline(
            fleet=context.fleet.name,
            host=host,
            configuration=configuration,
            run_id=run_id,
            recorded_at=context.now(),
        )
    return confirmed


def _stop(result: TrialResult) -> dict[str, str] | None:
    """Whether the run ends here."""
    if result.reason in {"host-failed", "commit-failed"}:
        return {"status": "failed", "message": f"trial {result.trial}: {result.note}; the baseline is restored"}
    if result.reason == "interrupted":
        return {"status": "interrupted", "message": f"{result.note}; the baseline is restored"}
    return None
