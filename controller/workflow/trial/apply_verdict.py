"""Carry a verdict out, and verify that it was carried out: commit a KEEP everywhere, roll a REVERT back."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.kept import read_kept_text, with_kept
from controller.adapters.store import read_commit
from controller.model.commit import Commit
from controller.model.errors import FleetLocked, HandEdited, HostFailed, Interrupted, RatchetError, RestoreUnverified
from controller.model.events import Notice, StepStarted, TrialSettled
from controller.model.steps import RunStop, Settled
from controller.model.trial import ReasonCode, TrialPlan, TrialResult
from controller.report.words import effect_words
from controller.workflow.context import RunContext
from controller.workflow.fleet.committing import carry_out
from controller.workflow.fleet.configurations import (
    Rejected,
    baselines_now,
    roll_back,
    stage_everywhere,
    tell_undeployed,
)
from controller.workflow.fleet.hosts import edited_on_baseline, hand_edited
from controller.workflow.fleet.quarantine import (
    HOST_FAILURES,
    leave_out,
    named_hosts,
    put_back,
    quarantines,
    too_few,
)
from controller.workflow.trial.evidence import SETTLED
from controller.workflow.trial.phases import trial_directory


def settle(
    context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult, baseline: dict[str, str]
) -> Settled:
    """Commit a KEEP on every host, or put the baseline back.

    Where broken hosts are quarantined, those of this trial are missing in the new baseline, and do not stop the run.

    Safe to run twice: committing or rolling back what is already so changes nothing.
    Raises RestoreUnverified when the baseline cannot be shown to be live, FleetLocked.
    """
    started = time.monotonic()
    settled = _Settled(result, baseline, "")
    keep = result.verdict == "KEEP"
    with context.accounted(
        "commit" if keep else "rollback",
        sorted(baseline),
        f"{result.experiment}/{result.variant}: {result.verdict} {result.reason}",
        {"run": run_id, "trial": result.trial, "evidence": result.evidence, "pairs": result.pairs},
        always=not keep,
    ) as outcome:
        if keep:
            settled = _commit(context, run_id, trial, settled)
        if settled.result.verdict == "REVERT" and not settled.text:
            settled = _revert(context, run_id, settled)
        result = settled.result
        outcome.hosts, outcome.what = sorted(settled.baseline), settled.text
        outcome.evidence = {"baseline": settled.baseline}
        if keep and result.verdict != "KEEP":
            outcome.failed(f"{result.reason}: {result.note}; {settled.text}")
    result = result.model_copy(update={"seconds": round(result.seconds + time.monotonic() - started, 3)})
    context.observer(TrialSettled(trial=trial.number, text=settled.text))
    _leave_word(context, run_id, result)
    stop = settled.stop or _stop(context, result, settled.baseline)
    return Settled(result=result, baseline=settled.baseline, stop=stop)


def _leave_word(context: RunContext, run_id: str, result: TrialResult) -> None:
    """Who ends this run by hand tells what it has settled from here."""
    folder = trial_directory(context.run_directory(run_id), result.trial)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SETTLED, result.model_dump_json(indent=1) + "\n")
    except (OSError, HostFailed) as error:
        context.observer(Notice(level="warning", text=f"{folder / SETTLED} is not written: {error}"))


@dataclass(frozen=True)
class _Settled:
    """`text` is empty as long as nothing was carried out."""

    result: TrialResult
    baseline: dict[str, str]
    text: str
    stop: RunStop | None = None


def _commit(context: RunContext, run_id: str, trial: TrialPlan, settled: _Settled) -> _Settled:
    """Carry a KEEP out. What fails before a host has confirmed it is taken back everywhere; nothing later is."""
    baseline = settled.baseline
    recorded = read_commit(context.store, commit_id(run_id, trial.number))
    # What has begun is gone on with: the settings may say already what is being committed.
    edits = {} if recorded else edited_on_baseline(context.fleet, baseline)
    if edits:
        # A commit would make the edits the baseline; that is the operator's to say.
        note = hand_edited(context.fleet.name, edits).what
        return replace(settled, result=_failed(settled.result, "host-failed", note, sorted(edits)))
    context.observer(StepStarted(text=f"trial {trial.number}: committing on every host"))
    try:
        commit, doubt, left = carry_out(context, recorded or _planned(context, run_id, trial, settled.result, baseline))
    except FleetLocked as error:
        return _kept_by_whoever_has_it(context, run_id, trial, settled, error)
    except RestoreUnverified:
        raise
    except (RatchetError, Rejected) as error:
        what, where = (error.what, error.where) if isinstance(error, RatchetError) else (str(error), "")
        context.observer(StepStarted(text="the commit failed; putting the baseline back"))
        at_fault = named_hosts(error, sorted(baseline)) if isinstance(error, HostFailed) and where else []
        reason: ReasonCode = "interrupted" if isinstance(error, Interrupted) else "commit-failed"
        note = what if not where or where in what else f"{where}: {what}"
        return replace(settled, result=_failed(settled.result, reason, note, at_fault if quarantines(context) else []))
    doubt |= left
    result = settled.result.model_copy(update={"parameters": dict(commit.parameters)})
    confirmed = {host: commit.after[host] for host in commit.confirmed if host in baseline}
    text = f"kept on {len(confirmed)} hosts, {'in doubt: ' + ', '.join(sorted(doubt)) if doubt else 'verified'}"
    tell_undeployed(context, confirmed)
    if not doubt:
        return replace(settled, result=result, baseline=confirmed, text=text)
    if quarantines(context):
        leave_out(context, run_id, doubt)
        rest = {host: configuration for host, configuration in confirmed.items() if host not in doubt}
        return replace(settled, result=result, baseline=rest, text=text)
    message = f"trial {trial.number} is kept on {len(confirmed)} of {len(baseline)} hosts; " + "; ".join(
        f"{host}: {why}" for host, why in sorted(doubt.items())
    )
    fleet = context.fleet.name
    if set(doubt) - set(left):
        message += f"\n  next: make it reachable, then: controller rollback --fleet {fleet} (it finishes this)"
    if left:
        play = f"ansible-playbook -i inventory/{fleet} playbooks/commit.yml --limit {','.join(sorted(left))}"
        message += f"\n  next: for what the inventory says: {play}"
    message += f"\n  or, to undo it everywhere: controller rollback --fleet {fleet} --before {run_id}"
    stop = RunStop(status="unverified", message=message)
    return replace(settled, result=result, baseline=baseline | commit.after, text=text, stop=stop)


def commit_id(run_id: str, trial: int) -> str:
    """The name under which the commit of a trial's KEEP is recorded."""
    return f"{run_id}/{trial}"


def _kept_by_whoever_has_it(
    context: RunContext, run_id: str, trial: TrialPlan, settled: _Settled, error: FleetLocked
) -> _Settled:
    """The end of a trial whose fleet another run took in the middle of the commit: what hosts have confirmed is so.

    Raises the error where none has.
    """
    commit = read_commit(context.store, commit_id(run_id, trial.number))
    if commit is None or not commit.forward or not commit.begun:
        raise error
    stop = RunStop(
        status="taken-over",
        message=f"{error.what}, in the middle of {commit.why}: confirmed on {', '.join(commit.confirmed)}; "
        "whoever has the fleet finishes it",
    )
    text = f"kept on {len(commit.confirmed)} hosts, then taken over"
    return replace(settled, baseline=settled.baseline | commit.after, text=text, stop=stop)


def _planned(
    context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult, baseline: dict[str, str]
) -> Commit:
    """The commit of exactly what was measured, on every host that takes part.

    Raises HostFailed, Rejected: it cannot be staged somewhere. BadInput: the kept parameters cannot be written.
    """
    after, controls = stage_everywhere(context, trial, baseline)
    # Parameters that both arms had are part of what was measured, unless they are every host's already.
    parameters = dict(trial.variant.parameters)
    if controls != {host: baseline.get(host) for host in controls}:
        parameters = dict(trial.experiment.requires) | parameters
    before = read_kept_text(context.project, context.fleet.name)
    effect = result.confirmed_effect or result.effect
    told = "" if effect is None else effect_words(effect, result.objective)
    name = f"{trial.experiment.name}/{trial.variant.name}"
    comment = ", ".join(part for part in (run_id, name, told) if part)
    return Commit(
        commit_id=commit_id(run_id, trial.number),
        fleet=context.fleet.name,
        run_id=run_id,
        why=f"the commit of {name}",
        started_at=context.now(),
        before=baseline,
        after=after,
        kept_before=before,
        kept_after=with_kept(context.project, context.fleet.name, parameters=parameters, comment=comment, text=before),
        parameters=parameters,
        comment=comment,
    )


def _failed(result: TrialResult, reason: ReasonCode, note: str, hosts: list[str]) -> TrialResult:
    return result.model_copy(update={"verdict": "REVERT", "reason": reason, "note": note, "failed_hosts": hosts})


def _revert(context: RunContext, run_id: str, settled: _Settled) -> _Settled:
    """Put the baseline back on every host.

    What somebody has deployed meanwhile stays, and the run goes on with it; what a later run has, ends this one.
    """
    result = settled.result
    baseline, later = baselines_now(context, settled.baseline)
    left = baseline | {host: settled.baseline[host] for host in later}
    context.observer(StepStarted(text=f"trial {result.trial}: rolling back and verifying"))
    text = "baseline restored and verified"
    if quarantines(context):
        failed = {host: result.note for host in result.failed_hosts if host in baseline}
        left_out = put_back(context, baseline, failed)
        leave_out(context, run_id, left_out)
        left = {host: configuration for host, configuration in left.items() if host not in left_out}
        text = f"{text} on {len(left)} hosts" if left_out else text
    else:
        try:
            roll_back(context, baseline)
        except HandEdited as error:
            stop = RunStop(status="failed", message=f"trial {result.trial}: {error}")
            return replace(settled, baseline=left, text=f"baseline live; {error.what}", stop=stop)
    return replace(settled, baseline=left, text=text, stop=_outrun(result, later))


def _outrun(result: TrialResult, later: list[str]) -> RunStop | None:
    """The end of a run whose hosts another one has given a baseline since."""
    if not later:
        return None
    return RunStop(
        status="failed",
        message=f"trial {result.trial}: a later run has changed the baseline of {', '.join(later)}; what is left of "
        "this one was planned against another\n  next: controller optimize, for what it has not tried",
    )


def _stop(context: RunContext, result: TrialResult, left: dict[str, str]) -> RunStop | None:
    """Whether the run ends here."""
    if result.reason in HOST_FAILURES and not (quarantines(context) and result.failed_hosts):
        return RunStop(status="failed", message=f"trial {result.trial}: {result.note}; the baseline is restored")
    if result.reason == "interrupted":
        return RunStop(status="interrupted", message=f"{result.note}; the baseline is restored")
    few = too_few(context, left)
    return RunStop(status="failed", message=f"trial {result.trial}: {result.note}\n{few}") if few else None
