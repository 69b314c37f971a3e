"""One stint of a search: a few pairs of one variant, judged together with those of its earlier stints.

A stint leaves the hosts on their baseline (its agents restore it, or the leases do), so nothing has to be settled
before the search as a whole has ended.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from controller.adapters.files.atomic import write_atomically
from controller.judge.stints import StintJudge, judge_stints
from controller.model.errors import Interrupted, RatchetError
from controller.model.events import Event, PairJudged, StepStarted, TrialStarted
from controller.model.experiment import ParameterValue
from controller.model.trial import Judgement, Pair, ReasonCode, Stint, TrialPlan
from controller.search.ledger import Entry
from controller.workflow.context import RunContext
from controller.workflow.fleet import configurations
from controller.workflow.fleet.quarantine import named_hosts
from controller.workflow.trial import evidence
from controller.workflow.trial.calibrate import calibrated, with_calibration
from controller.workflow.trial.phases import STINT, recorded_plan, stint_plan, trial_directory
from controller.workflow.trial.probing import Observation, Probing


@dataclass(frozen=True)
class Question:
    """What a stint measures.

    Args:
        trial: the variant's plan; its number is the trial's, also where several stints share it.
        earlier: the variant's stints so far.
        control: the control's parameters where it is not the baseline.
        trials_in_run: how many trials there may be, for the display.
    """

    trial: TrialPlan
    stint: Stint
    earlier: list[Stint]
    trials_in_run: int
    why: str
    control: dict[str, ParameterValue] | None = None


def _joined(context: RunContext, run_id: str, trial: TrialPlan) -> TrialPlan:
    """The trial, calibrated, with what its earlier stints recorded, also on hosts that are left out by now.

    All stints of a variant are measured alike, on whichever hosts. Raises HostFailed, Interrupted.
    """
    earlier = recorded_plan(context.run_directory(run_id), trial)
    found = earlier.calibration
    trial = calibrated(context, run_id, trial) if found is None else with_calibration(trial, found)
    return trial.model_copy(
        update={
            "hosts": list(dict.fromkeys([*earlier.hosts, *trial.hosts])),
            "control_ids": earlier.control_ids | trial.control_ids,
            "variant_ids": earlier.variant_ids | trial.variant_ids,
            "sockets_differ": earlier.sockets_differ or trial.sockets_differ,
        }
    )


def read_stints(folder: Path, trial: TrialPlan, stints: list[Stint]) -> list[tuple[bool, list[Pair]]]:
    """(alone, pairs) of each stint, recomputed from the CSVs under the run's `folder`. Raises EvidenceInvalid."""
    return [
        (
            stint.alone,
            evidence.read_pairs(
                stint_plan(trial, stint), STINT.directory(folder, trial.number, stint.number), stint.sequence, None
            ),
        )
        for stint in stints
    ]


def run_stint(context: RunContext, run_id: str, question: Question, baseline: dict[str, str]) -> Entry:
    """Measure. A host that fails, or the operator, ends the entry, never the ledger."""
    started = time.monotonic()
    trial, stint = question.trial, question.stint
    context.observer(
        StepStarted(
            text=f"stint {stint.number}: {trial.experiment.name}/{trial.variant.name}, "
            f"{stint.pairs_per_host} pairs a host ({question.why})"
        )
    )
    try:
        if context.stop.requested:
            raise Interrupted(f"{context.stop.why}, before it began")
        entry = _measure(context, run_id, question, baseline)
    except RatchetError as error:
        reason: ReasonCode = "interrupted" if isinstance(error, Interrupted) else "host-failed"
        entry = Entry(
            trial=trial.number,
            variant=trial.variant,
            stint=stint,
            judgement=None,
            ended=reason,
            note=str(error),
            failed_hosts=named_hosts(error, trial.hosts),
        )
    return entry.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


def _measure(context: RunContext, run_id: str, question: Question, baseline: dict[str, str]) -> Entry:
    trial = question.trial
    stint = question.stint.model_copy(update={"hosts": trial.hosts})

    def ended(reason: ReasonCode, note: str, judgement: Judgement | None = None) -> Entry:
        return Entry(
            trial=trial.number, variant=trial.variant, stint=stint, judgement=judgement, ended=reason, note=note
        )

    _, staged = configurations.push(
        context, trial.experiment, trial.variant, hosts=trial.hosts, control=question.control
    )
    for host, arms in sorted(staged.items()):
        # The control is a candidate too: that nginx refuses it says nothing about the host.
        if question.control is not None and not arms[configurations.CONTROL]["ok"]:
            return ended(
                "rejected-by-nginx", f"{host}, the other candidate: {arms[configurations.CONTROL].get('error', '')}"
            )
    try:
        controls, variants = configurations.arm_ids(staged, baseline, context.fleet.name)
        differ = configurations.never_live(staged, trial.design)
    except configurations.Rejected as error:
        return ended(error.reason, str(error))
    if controls == variants:
        return ended("no-difference", "both arms render to the same configuration")
    trial = trial.model_copy(update={"control_ids": controls, "variant_ids": variants, "sockets_differ": differ})
    folder = context.run_directory(run_id)
    trial = _joined(context, run_id, trial)
    stint_folder = STINT.directory(folder, trial.number, stint.number)
    stint_folder.mkdir(parents=True, exist_ok=True)
    write_atomically(trial_directory(folder, trial.number) / "plan.json", trial.model_dump_json(indent=1) + "\n")
    try:
        before = read_stints(folder, trial, question.earlier)
    except evidence.EvidenceInvalid as error:
        return ended("measurement-invalid", str(error))
    judge = StintJudge(trial)
    for alone, pairs in before:
        judge.begin(alone=alone)
        for pair in pairs:
            judge.fold(pair)
    judge.begin(alone=stint.alone)
    plan = stint_plan(trial, stint)
    context.observer(TrialStarted(plan=trial, trials_in_run=question.trials_in_run))
    observation = Probing(plan, run_id, _of_trial(context, trial.number), judge, STINT).observe()
    stint = stint.model_copy(update={"sequence": observation.sequence})
    failed = _failure(observation, context.stop.why)
    if failed is not None:
        failure = ended(*failed, observation.judgement)
        return failure.model_copy(update={"failed_hosts": sorted(observation.failures)})
    try:
        evidence.pull(context, STINT.host_run_id(run_id), plan, observation.ends, stint_folder)
        pairs = evidence.read_pairs(plan, stint_folder, stint.sequence, observation.ends)
        again = judge_stints(trial, [*before, (stint.alone, pairs)])
    except (evidence.EvidenceInvalid, ValueError) as error:
        return ended("measurement-invalid", str(error), observation.judgement)
    except RatchetError as error:
        failure = ended("host-failed", evidence.explain(error), observation.judgement)
        return failure.model_copy(update={"failed_hosts": named_hosts(error, trial.hosts)})
    live = observation.judgement
    if live is None or not evidence.same_judgement(live, again):
        return ended("measurement-invalid", "the CSVs do not give the judgement that was reached live", again)
    reason = again.reason if again.decided else None
    if reason is None and stint.alone:
        reason = "undecided"
    return Entry(trial=trial.number, variant=trial.variant, stint=stint, judgement=again, ended=reason, note=again.note)


def _failure(observation: Observation, why_stopped: str) -> tuple[ReasonCode, str] | None:
    """Why the stint counts for nothing, beside what its CSVs may say."""
    if observation.failures:
        return "host-failed", "; ".join(evidence.explain(each) for _, each in sorted(observation.failures.items()))
    if observation.interrupted:
        return "interrupted", why_stopped
    if observation.judgement is None:
        return "guardrail-missing-data", "not one complete pair was measured"
    return None


def _of_trial(context: RunContext, number: int) -> RunContext:
    """Pairs are told under the number of the trial, not of the stint."""
    shown = context.observer

    def observe(event: Event) -> None:
        shown(event.model_copy(update={"trial": number}) if isinstance(event, PairJudged) else event)

    return dataclasses.replace(context, observer=observe)
