"""A proven variant on its way to the baseline, under the lease: no harm on the live instance, and none that is slow.

A duet's KEEP is tried on the live instance in a short switchback. Whatever was proven then stays live alone for the
soak, with the probe's load on it, while its health is watched. Only then is it committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from controller.judge.live import LiveJudge, judge_live
from controller.judge.soak import SoakJudge, judge_soak
from controller.model.errors import RatchetError
from controller.model.events import StepStarted
from controller.model.trial import (
    Judgement,
    LiveCheck,
    Pair,
    ReasonCode,
    SoakCheck,
    TrialPlan,
    TrialResult,
)
from controller.workflow.context import RunContext
from controller.workflow.fleet.hosts import on_each_host, read_status
from controller.workflow.fleet.quarantine import named_hosts
from controller.workflow.trial import evidence
from controller.workflow.trial.batch import read_stints
from controller.workflow.trial.phases import LIVE_CHECK, SOAK, Phase, live_plan, soak_plan, trial_directory
from controller.workflow.trial.probing import Probing


def go_live(
    context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult, baseline: Mapping[str, str]
) -> TrialResult:
    """A KEEP after its check on the live instance and its soak; it is none any more when either finds harm.

    What was measured live, on every host, is not checked there again. Nothing is switched where a host's baseline is
    not the run's any more: a resumed run may come late.

    One whose sockets differ is left as it is: each switch would reset connections of users. Its commit does it once.

    Every host is back on its baseline when this returns, or its lease runs.
    """
    if trial.sockets_differ:
        return result
    started = time.monotonic()
    if result.verdict == "KEEP":
        result = _still_of_this_run(context, trial, result, baseline)
    if result.verdict == "KEEP" and (trial.design == "duet" or _unseen(context, run_id, trial, result)):
        live = check_live(context, run_id, trial)
        result = result.model_copy(update={"live": live})
        if not live.passed:
            result = _reverted(result, live, f"on the live instance: {live.note}")
    if result.verdict == "KEEP" and trial.soak_seconds:
        soak = check_soak(context, run_id, trial, result)
        result = result.model_copy(update={"soak": soak})
        if not soak.passed:
            result = _reverted(result, soak, f"in the soak: {soak.note}")
    return result.model_copy(update={"seconds": round(result.seconds + time.monotonic() - started, 3)})


def _still_of_this_run(
    context: RunContext, trial: TrialPlan, result: TrialResult, baseline: Mapping[str, str]
) -> TrialResult:
    """The result; reverted where users would be switched between what somebody has put out of service."""
    hosts = [host for host in context.fleet.hosts if host.name in trial.hosts]
    statuses, _ = on_each_host(hosts, read_status)
    others = {host: status.get("confirmed") for host, status in sorted(statuses.items())}
    changed = [f"{host}: its baseline is {now} by now" for host, now in others.items() if now != baseline.get(host)]
    if not changed:
        return result
    note = f"not tried on the live instance: {'; '.join(changed)}"
    return result.model_copy(update={"verdict": "REVERT", "reason": "host-failed", "note": note})


def _unseen(context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult) -> bool:
    """Whether the trial's own pairs, on the live instance, lack a host: they are the soak's reference."""
    try:
        pairs = reference_pairs(context.run_directory(run_id), trial, result)
    except (evidence.EvidenceInvalid, OSError, ValueError):
        return False  # the soak says so
    return bool(set(trial.hosts) - {pair.host for pair in pairs if pair.valid})


def _reverted(result: TrialResult, check: LiveCheck | SoakCheck, note: str) -> TrialResult:
    return result.model_copy(
        update={"verdict": "REVERT", "reason": check.reason, "note": note, "failed_hosts": check.failed_hosts}
    )


def check_live(context: RunContext, run_id: str, trial: TrialPlan) -> LiveCheck:
    """Probe the live instance in both arms.

    A host that fails, evidence that is damaged, or an operator who stops the run: not passed, with the reason.
    """
    context.observer(
        StepStarted(text=f"trial {trial.number}: proven; checking on the live instance that it does no harm")
    )
    plan = live_plan(trial)

    def again(folder: Path, sequence: list[str], ends: dict[str, dict[str, object]]) -> Judgement:
        return evidence.judge_again(plan, folder, sequence, ends, judge=judge_live)[0]

    found = _observe(context, plan, LiveJudge(plan), run_id=run_id, phase=LIVE_CHECK, again=again)
    return LiveCheck(
        passed=found.reason is None,
        reason=found.reason,
        note=found.note,
        effect=found.judgement.effect if found.judgement else None,
        objective=plan.experiment.objective.name,
        pairs=len(found.sequence),
        sequence=found.sequence,
        failed_hosts=found.failed_hosts,
    )


def check_soak(context: RunContext, run_id: str, trial: TrialPlan, result: TrialResult) -> SoakCheck:
    """Leave the variant live for the soak, and watch its health."""
    seconds = trial.soak_seconds
    context.observer(StepStarted(text=f"trial {trial.number}: watching its health on the live instance, {seconds:g} s"))
    plan = soak_plan(trial)
    try:
        reference = reference_pairs(context.run_directory(run_id), trial, result)
    except (evidence.EvidenceInvalid, OSError, ValueError) as error:
        return SoakCheck(passed=False, reason="measurement-invalid", note=str(error), seconds=0.0)

    def again(folder: Path, sequence: list[str], ends: dict[str, dict[str, object]]) -> Judgement:
        return judge_soak(plan, reference, evidence.read_blocks(plan, folder, sequence, ends))

    started = time.monotonic()
    found = _observe(context, plan, SoakJudge(plan, reference), run_id=run_id, phase=SOAK, again=again)
    return SoakCheck(
        passed=found.reason is None,
        reason=found.reason,
        note=found.note,
        seconds=round(time.monotonic() - started, 1),
        sequence=found.sequence,
        failed_hosts=found.failed_hosts,
    )


def reference_pairs(run_directory: Path, trial: TrialPlan, result: TrialResult) -> list[Pair]:
    """The pairs on the live instance just before the soak, recomputed from their CSVs. Raises EvidenceInvalid."""
    if result.live is not None:
        folder = LIVE_CHECK.directory(run_directory, trial.number)
        return evidence.read_pairs(live_plan(trial), folder, result.live.sequence, None)
    if result.stints:
        return [pair for _, pairs in read_stints(run_directory, trial, result.stints) for pair in pairs]
    return evidence.read_pairs(trial, trial_directory(run_directory, trial.number), result.sequence, None)


class _Found(NamedTuple):
    """What a check said: no `reason` when it found no harm."""

    reason: ReasonCode | None
    note: str
    judgement: Judgement | None
    sequence: list[str]
    failed_hosts: list[str]


def _observe(
    context: RunContext,
    plan: TrialPlan,
    judge: LiveJudge | SoakJudge,
    *,
    run_id: str,
    phase: Phase,
    again: Callable[[Path, list[str], dict[str, dict[str, object]]], Judgement],
) -> _Found:
    """Probe, bring the evidence home into the phase's folder, and judge it `again`; what is not whole is no pass."""
    folder = phase.directory(context.run_directory(run_id), plan.number)
    observation = Probing(plan, run_id, context, judge, phase).observe()
    sequence, live = observation.sequence, observation.judgement

    def ended(reason: ReasonCode, note: str, failed_hosts: Iterable[str] = ()) -> _Found:
        return _Found(reason, note, None, sequence, sorted(failed_hosts))

    if observation.failures:
        notes = (evidence.explain(error) for _, error in sorted(observation.failures.items()))
        return ended("host-failed", "; ".join(notes), observation.failures)
    if observation.interrupted:
        return ended("interrupted", context.stop.why)
    if live is None or not live.decided:
        return ended("guardrail-missing-data", f"the {phase.name} did not come to its end")
    try:
        evidence.pull(context, phase.host_run_id(run_id), plan, observation.ends, folder)
        recomputed = again(folder, sequence, observation.ends)
    except (evidence.EvidenceInvalid, ValueError) as error:
        return ended("measurement-invalid", str(error))
    except RatchetError as error:
        return ended("host-failed", evidence.explain(error), named_hosts(error, plan.hosts))
    if recomputed != live:
        return ended("measurement-invalid", f"live: {live.action}; from the CSVs: {recomputed.action}")
    reason = None if live.action == phase.passed else live.reason
    return _Found(reason, live.note, live, sequence, [])
