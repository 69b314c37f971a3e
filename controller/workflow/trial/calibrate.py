"""Calibrate a trial whose experiment leaves rate or block length open: control against control, then choose."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from controller.judge.calibration import AlikeJudge, Measured, judge_alike, open_settings, propose
from controller.model.calibration import Calibration, Look
from controller.model.errors import HostFailed, Interrupted
from controller.model.events import Event, Notice, PairJudged, StepStarted
from controller.model.trial import TrialPlan, TrialTiming
from controller.report.words import calibration_words
from controller.workflow.context import RUN_AGAIN, RunContext
from controller.workflow.trial import evidence
from controller.workflow.trial.phases import CALIBRATION, at_rate, look_plan, trial_directory
from controller.workflow.trial.probing import Observation, Probing


def calibrated(context: RunContext, run_id: str, trial: TrialPlan) -> TrialPlan:
    """The trial with everything settled that its experiment leaves open, once an experiment and its hosts in a run.

    Every host is back on its baseline when this returns, or its lease runs.

    Raises HostFailed, Interrupted.
    """
    if trial.calibration is not None or not open_settings(trial):
        return trial
    found = _known(context.run_directory(run_id), trial)
    if found is None:
        found = _calibrate(context, run_id, trial)
        context.observer(StepStarted(text=f"trial {trial.number}: calibrated: {calibration_words(found)}"))
        if not found.sound:
            context.observer(Notice(level="warning", text=f"control against control: {found.note}"))
    return with_calibration(trial, found)


def with_calibration(trial: TrialPlan, found: Calibration) -> TrialPlan:
    timing = trial.timing.model_copy(
        update={"block_seconds": found.block_seconds, "burn_in_seconds": found.burn_in_seconds}
    )
    return trial.model_copy(
        update={"experiment": at_rate(trial.experiment, found.rate), "timing": timing, "calibration": found}
    )


def without_calibration(trial: TrialPlan) -> TrialPlan:
    """The trial as it was planned."""
    found = trial.calibration
    if found is None:
        return trial
    experiment = at_rate(trial.experiment, None) if "rate" in found.open else trial.experiment
    timing = TrialTiming.of(experiment.timing, "duet" if trial.design == "duet" else "switchback", experiment.source)
    return trial.model_copy(update={"experiment": experiment, "timing": timing, "calibration": None})


def choose_again(run_directory: Path, found: Calibration) -> Calibration:
    """The choice from the CSVs, for the trial that was calibrated: others of the run, which share it, may ask for
    other effects. Raises EvidenceInvalid when the looks are not those that would be taken, OSError.
    """
    path = trial_directory(run_directory, found.trial) / "plan.json"
    planned = without_calibration(TrialPlan.model_validate_json(path.read_text()))
    origin = planned.model_copy(update={"hosts": found.hosts or planned.hosts})
    measured: list[Measured] = []
    for step in found.steps:
        if propose(origin, measured) != step.look:
            raise evidence.EvidenceInvalid(f"calibration, look {step.look.number}: another look was due")
        measured.append(_read(run_directory, origin, step.look, step.sequence, None))
    again = propose(origin, measured)
    if not isinstance(again, Calibration):
        raise evidence.EvidenceInvalid(f"calibration: look {again.number} is missing")
    return again


def _known(run_directory: Path, trial: TrialPlan) -> Calibration | None:
    """What an earlier trial of the same experiment chose on the same hosts, whichever of them are left."""
    for path in sorted(run_directory.glob("trials/*/plan.json")):
        other = TrialPlan.model_validate_json(path.read_text())
        same = other.experiment.name == trial.experiment.name and set(trial.hosts) <= set(other.hosts)
        if same and other.design == trial.design and other.calibration is not None:
            return other.calibration
    return None


def _calibrate(context: RunContext, run_id: str, trial: TrialPlan) -> Calibration:
    folder = CALIBRATION.directory(context.run_directory(run_id), trial.number)
    shutil.rmtree(folder, ignore_errors=True)
    measured: list[Measured] = []
    while isinstance(proposal := propose(trial, measured), Look):
        context.observer(
            StepStarted(
                text=f"trial {trial.number}: control against control, {proposal.pairs_per_host} pairs a host "
                f"at {proposal.rate:g} requests/s"
            )
        )
        measured.append(_measure(context, run_id, trial, proposal))
    return proposal


def _measure(context: RunContext, run_id: str, trial: TrialPlan, look: Look) -> Measured:
    plan = look_plan(trial, look)
    observation = Probing(plan, run_id, _quiet(context), AlikeJudge(plan), CALIBRATION).observe()
    _check(observation)
    try:
        evidence.pull(
            context,
            CALIBRATION.host_run_id(run_id),
            plan,
            observation.ends,
            CALIBRATION.directory(context.run_directory(run_id), trial.number, look.number),
        )
        return _read(context.run_directory(run_id), trial, look, observation.sequence, observation.ends)
    except evidence.EvidenceInvalid as error:
        raise HostFailed(
            f"the evidence of the calibration is damaged: {error}", next_step="run playbooks/site.yml, then try again"
        ) from None


def _read(
    run_directory: Path, trial: TrialPlan, look: Look, sequence: list[str], ends: dict[str, dict[str, Any]] | None
) -> Measured:
    plan = look_plan(trial, look)
    folder = CALIBRATION.directory(run_directory, trial.number, look.number)
    judgement, pairs = evidence.judge_again(plan, folder, sequence, ends, judge=judge_alike)
    rows = {
        host: evidence.read_rows_of(folder, host, plan.experiment.workload.timeout_ms * 1000) for host in plan.hosts
    }
    return Measured(look=look, pairs=pairs, rows=rows, breach=judgement.note if judgement.action == "revert" else "")


def _check(observation: Observation) -> None:
    """Raises HostFailed, Interrupted."""
    for host, error in sorted(observation.failures.items()):
        raise HostFailed(f"while control ran against control: {error.what}", where=host, next_step=error.next_step)
    if observation.interrupted:
        raise Interrupted("stopped during the calibration", next_step=RUN_AGAIN)


def _quiet(context: RunContext) -> RunContext:
    """The pairs of an A/A are nobody's progress."""
    shown = context.observer

    def observe(event: Event) -> None:
        if not isinstance(event, PairJudged):
            shown(event)

    return dataclasses.replace(context, observer=observe)
