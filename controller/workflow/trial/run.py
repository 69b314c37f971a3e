"""One trial up to its verdict: stage both arms, probe, bring the evidence home, judge it again; then take it live."""

from __future__ import annotations

import time

from controller.adapters.files.atomic import write_atomically
from controller.judge.verdict import judge_of
from controller.model.errors import HostFailed, Interrupted, RatchetError
from controller.model.events import Notice, StepStarted, TrialEnded, TrialStarted
from controller.model.run import RunPlan
from controller.model.trial import Judgement, Pair, ReasonCode, TrialPlan, TrialResult
from controller.report.words import value_words
from controller.workflow.context import RUN_AGAIN, RunContext
from controller.workflow.fleet import configurations
from controller.workflow.fleet.quarantine import named_hosts, quarantines
from controller.workflow.trial import evidence
from controller.workflow.trial.calibrate import calibrated
from controller.workflow.trial.go_live import go_live
from controller.workflow.trial.phases import recorded_plan, trial_directory
from controller.workflow.trial.plan import LEAST_FLEET
from controller.workflow.trial.probing import Observation, Probing
from controller.workflow.trial.results import trial_result


def run_trial(context: RunContext, plan: RunPlan, trial: TrialPlan, baseline: dict[str, str]) -> TrialResult:
    """Measure one variant. The hosts are back on the baseline, or their lease runs.

    What is proven has yet to be taken live (`take_live`), and is told then.

    Raises HostFailed when the trial could not even be staged or calibrated, Interrupted when the operator stopped
    before it began.
    """
    if context.stop.requested:
        raise Interrupted(f"{context.stop.why}, before the next trial", next_step=RUN_AGAIN)
    started = time.monotonic()
    if trial.design == "fleet" and len(trial.hosts) < LEAST_FLEET:
        note = f"hosts are compared with hosts, and only {len(trial.hosts)} of at least {LEAST_FLEET} is left"
        return _finish(context, without_pairs(trial, "host-failed", note, started))
    context.observer(StepStarted(text=f"trial {trial.number}: staging {trial.experiment.name}/{trial.variant.name}"))
    try:
        _, staged = configurations.push(context, trial.experiment, trial.variant, hosts=trial.hosts)
    except HostFailed as error:
        return _finish(context, _quarantined(context, trial, error, started))
    try:
        controls, variants = configurations.arm_ids(staged, baseline, context.fleet.name)
        differ = configurations.never_live(staged, trial.design)
    except configurations.Rejected as error:
        return _finish(context, without_pairs(trial, error.reason, str(error), started))
    trial = trial.model_copy(update={"control_ids": controls, "variant_ids": variants, "sockets_differ": differ})
    if any(controls[host] != baseline.get(host) for host in controls):
        sets = ", ".join(f"{name}: {value_words(value)}" for name, value in trial.experiment.requires.items())
        text = f"{trial.experiment.name} sets {sets} in both arms, which the fleet does not have: a KEEP keeps it too"
        context.observer(Notice(text=text))
    if controls == variants:
        note = "the variant renders to the configuration that is live already"
        return _finish(context, without_pairs(trial, "no-difference", note, started))

    try:
        trial = calibrated(context, plan.run_id, trial)
    except HostFailed as error:
        return _finish(context, _quarantined(context, trial, error, started))
    folder = trial_directory(context.run_directory(plan.run_id), trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "plan.json", trial.model_dump_json(indent=1) + "\n")
    context.observer(TrialStarted(plan=trial, trials_in_run=len(plan.trials) or trial.number))
    observation = Probing(trial, plan.run_id, context, judge_of(trial)).observe()
    result = _conclude(context, plan, trial, observation, started)
    return result if result.verdict == "KEEP" else _finish(context, result)


def take_live(
    context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult, baseline: dict[str, str]
) -> TrialResult:
    """What is proven, after its check on the live instance and its soak (going_live.py).

    `trial` may be planned without ids: those that were measured are on record.
    """
    measured = recorded_plan(context.run_directory(run_id), trial)
    return _finish(context, go_live(context, run_id, measured, result, baseline))


def _quarantined(context: RunContext, trial: TrialPlan, error: HostFailed, started: float) -> TrialResult:
    """The end of a trial whose hosts failed before it measured, where the run goes on without them.

    Raises the error where it does not, or where it names no host.
    """
    at_fault = named_hosts(error, trial.hosts) if quarantines(context) else []
    if not at_fault:
        raise error
    failed = without_pairs(trial, "host-failed", evidence.explain(error), started)
    return failed.model_copy(update={"failed_hosts": at_fault})


def _conclude(
    context: RunContext, plan: RunPlan, trial: TrialPlan, observation: Observation, started: float
) -> TrialResult:
    """Turn what was observed into a result: only evidence that was recomputed from the CSVs counts."""
    live = observation.judgement
    if observation.failures:
        note = "; ".join(evidence.explain(error) for _, error in sorted(observation.failures.items()))
        return _result(trial, live, observation, reason="host-failed", note=note, started=started)
    if observation.interrupted:
        return _result(trial, live, observation, reason="interrupted", note=context.stop.why, started=started)
    if live is None:
        note = "not one complete pair was measured"
        return _result(trial, None, observation, reason="guardrail-missing-data", note=note, started=started)
    try:
        folder = trial_directory(context.run_directory(plan.run_id), trial.number)
        evidence.pull(context, plan.run_id, trial, observation.ends, folder)
        again, pairs = evidence.judge_again(trial, folder, observation.sequence, observation.ends)
    except evidence.EvidenceInvalid as error:
        return _result(trial, live, observation, reason="measurement-invalid", note=str(error), started=started)
    except RatchetError as error:
        observation.failures |= dict.fromkeys(named_hosts(error, trial.hosts), error)
        note = evidence.explain(error)
        return _result(trial, live, observation, reason="host-failed", note=note, started=started)
    if not evidence.same_judgement(live, again):
        note = f"live: {live.action} ({live.evidence:.4g}); from the CSVs: {again.action} ({again.evidence:.4g})"
        return _result(trial, again, observation, reason="measurement-invalid", note=note, started=started, pairs=pairs)
    reason = again.reason or "undecided"
    return _result(trial, again, observation, reason=reason, note=again.note, started=started, pairs=pairs)


def _result(
    trial: TrialPlan,
    judgement: Judgement | None,
    observation: Observation,
    *,
    reason: ReasonCode,
    note: str,
    started: float,
    pairs: list[Pair] | None = None,
) -> TrialResult:
    measured = trial_result(trial, judgement, pairs or [], reason=reason, note=note, seconds=time.monotonic() - started)
    return measured.model_copy(
        update={
            "pairs": len(observation.sequence),
            "sequence": observation.sequence,
            "failed_hosts": sorted(observation.failures),
        }
    )


def without_pairs(trial: TrialPlan, reason: ReasonCode, note: str, started: float | None = None) -> TrialResult:
    """The result of a trial that measured nothing."""
    started = time.monotonic() if started is None else started
    return _result(trial, None, Observation(), reason=reason, note=note, started=started)


def _finish(context: RunContext, result: TrialResult) -> TrialResult:
    context.observer(TrialEnded(result=result))
    return result
