"""Carry a verdict out, and verify that it was carried out: commit a KEEP everywhere, roll a REVERT back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from controller.adapters.files.kept import read_kept, write_kept
from controller.model.errors import FleetLocked, HandEdited, HostFailed
from controller.model.events import StepStarted, TrialSettled
from controller.model.trial import ReasonCode, TrialPlan, TrialResult
from controller.workflow.context import RunContext
from controller.workflow.hosts import edited_on_baseline, hand_edited, verify_baseline
from controller.workflow.quarantine import (
    HOST_FAILURES,
    leave_out,
    named_hosts,
    put_back,
    quarantines,
    too_few,
)
from controller.workflow.staging import commit, roll_back


def settle(
    context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult, baseline: dict[str, str]
) -> dict[str, Any]:
    """Returns `{"result": TrialResult document, "baseline": host -> id, "stop": None | {"status", "message"}}`.

    Where broken hosts are quarantined, those of this trial are missing in the new baseline, and do not stop the run.

    Safe to run twice: committing or rolling back what is already so changes nothing.
    Raises RestoreUnverified when the baseline cannot be shown to be live, FleetLocked.
    """
    started = time.monotonic()
    settled = _Settled(result, baseline, "")
    if result.verdict == "KEEP":
        settled = _commit(context, run_id, trial, settled)
    if settled.result.verdict == "REVERT" and not settled.text:
        settled = _revert(context, run_id, settled)
    result = settled.result
    context.account(
        "commit" if result.verdict == "KEEP" else "rollback",
        sorted(settled.baseline),
        f"{result.experiment}/{result.variant}: {result.verdict} {result.reason}; {settled.text}",
        {
            "run": run_id,
            "trial": result.trial,
            "evidence": result.evidence,
            "pairs": result.pairs,
            "baseline": settled.baseline,
        },
    )
    result = result.model_copy(update={"seconds": round(result.seconds + time.monotonic() - started, 3)})
    context.observer(TrialSettled(trial=trial.number, text=settled.text))
    return {
        "result": json.loads(result.model_dump_json()),
        "baseline": settled.baseline,
        "stop": settled.stop or _stop(context, result, settled.baseline),
    }


@dataclass(frozen=True)
class _Settled:
    """`text` is empty as long as nothing was carried out."""

    result: TrialResult
    baseline: dict[str, str]
    text: str
    stop: dict[str, str] | None = None


def _commit(context: RunContext, run_id: str, trial: TrialPlan, settled: _Settled) -> _Settled:
    """Carry a KEEP out. A commit that fails is taken back everywhere; one that edits are in the way of is not begun."""
    edits = edited_on_baseline(context.fleet, settled.baseline)
    if edits:
        # A commit would make the edits the baseline; that is the operator's to say.
        note = hand_edited(context.fleet.name, edits).what
        return replace(settled, result=_failed(settled.result, "host-failed", note, sorted(edits)))
    try:
        baseline = _keep(context, run_id, trial, settled.result, sorted(settled.baseline))
        return replace(settled, baseline=baseline, text=f"kept on {len(baseline)} hosts, verified")
    except FleetLocked:
        # Nothing is done on the host that is another's; those that are still ours had better not go on with it.
        ours = context.claims.still_ours(settled.baseline)
        if ours:
            commit(context, {}, ours)
            verify_baseline(context.fleet, {host: settled.baseline[host] for host in ours})
        raise
    except HostFailed as error:
        failure = error
    context.observer(StepStarted(text="the commit failed; putting the baseline back"))
    at_fault = named_hosts(failure, sorted(settled.baseline)) if quarantines(context) else []
    result = _failed(settled.result, "commit-failed", f"{failure.where}: {failure.what}", at_fault)
    rest = {host: configuration for host, configuration in settled.baseline.items() if host not in at_fault}
    leave_out(context, run_id, dict.fromkeys(at_fault, failure.what))
    if rest:
        commit(context, {}, sorted(rest))
        verify_baseline(context.fleet, rest)
    return replace(settled, result=result, baseline=rest, text="the commit failed; baseline restored and verified")


def _failed(result: TrialResult, reason: ReasonCode, note: str, hosts: list[str]) -> TrialResult:
    return result.model_copy(update={"verdict": "REVERT", "reason": reason, "note": note, "failed_hosts": hosts})


def _revert(context: RunContext, run_id: str, settled: _Settled) -> _Settled:
    """Put the baseline back on every host."""
    result, baseline = settled.result, settled.baseline
    context.observer(StepStarted(text=f"trial {result.trial}: rolling back and verifying"))
    text = "baseline restored and verified"
    if quarantines(context):
        failed = {host: result.note for host in result.failed_hosts if host in baseline}
        left_out = put_back(context, baseline, failed)
        leave_out(context, run_id, left_out)
        rest = {host: configuration for host, configuration in baseline.items() if host not in left_out}
        return replace(settled, baseline=rest, text=f"{text} on {len(rest)} hosts" if left_out else text)
    try:
        roll_back(context, baseline)
    except HandEdited as error:
        stop = {"status": "failed", "message": f"trial {result.trial}: {error}"}
        return replace(settled, text=f"baseline live; {error.what}", stop=stop)
    return replace(settled, text=text)


def _keep(context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult, hosts: list[str]) -> dict[str, str]:
    """Commit on every host that takes part, write the kept parameters into the inventory, record the new baselines.

    Until the parameters are written, the inventory still renders to the old baseline, so that a failed commit is
    undone by committing the inventory.
    """
    context.observer(StepStarted(text=f"trial {trial.number}: committing on every host"))
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


def _stop(context: RunContext, result: TrialResult, left: dict[str, str]) -> dict[str, str] | None:
    """Whether the run ends here."""
    if result.reason in HOST_FAILURES and not (quarantines(context) and result.failed_hosts):
        return {"status": "failed", "message": f"trial {result.trial}: {result.note}; the baseline is restored"}
    if result.reason == "interrupted":
        return {"status": "interrupted", "message": f"{result.note}; the baseline is restored"}
    few = too_few(context, left)
    return {"status": "failed", "message": f"trial {result.trial}: {result.note}\n{few}"} if few else None
