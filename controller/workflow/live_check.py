"""A duet's KEEP goes live under the lease: a short switchback shows that it does no harm there."""

from __future__ import annotations

from controller.judge.live import LiveJudge, judge_live
from controller.model.errors import RatchetError
from controller.model.events import StepStarted
from controller.model.experiment import AnyObjective, GoalsObjective, Metric, Objective, WeightedObjective
from controller.model.trial import LiveCheck, TrialPlan, TrialTiming
from controller.workflow import evidence
from controller.workflow.context import RunContext
from controller.workflow.probing import Probing
from controller.workflow.quarantine import named_hosts

# Valid pairs over all hosts together, and how many may be tried: too few to prove a gain, enough to see harm.
LIVE_PAIRS = 6
LIVE_PAIRS_AT_MOST = 12
LIVE_TIMING = TrialTiming(
    block_seconds=2.0, burn_in_seconds=0.3, minimum_pairs=LIVE_PAIRS, maximum_pairs=LIVE_PAIRS_AT_MOST, confirm_pairs=0
)


def live_plan(trial: TrialPlan) -> TrialPlan:
    """The live check of a trial, as a trial: the same arms in a switchback, with an order of its own."""
    experiment = trial.experiment.model_copy(
        update={
            "objective": live_objective(trial.experiment.objective),
            "workload": trial.experiment.workload.model_copy(update={"mode": "steady"}),
        }
    )
    return trial.model_copy(
        update={"design": "switchback", "timing": LIVE_TIMING, "seed": trial.seed + 1, "experiment": experiment}
    )


def live_objective(objective: AnyObjective) -> AnyObjective:
    """What the live instance is asked: of several goals the first, and latency at the workload's rate for throughput.

    Six noisy pairs cannot tell several goals apart; the first one matters most, and the guardrails hold. Saturating
    the live instance would harm whom the check is to protect.
    """
    match objective:
        case GoalsObjective():
            return Objective(metric=_at_rate(objective.goals[0].metric))
        case WeightedObjective():
            goals = [goal.model_copy(update={"metric": _at_rate(goal.metric)}) for goal in objective.goals]
            return objective.model_copy(update={"goals": goals})
        case Objective():
            return objective.model_copy(update={"metric": _at_rate(objective.metric)})


def _at_rate(metric: Metric) -> Metric:
    return "p50" if metric == "throughput" else metric


def live_run_id(run_id: str) -> str:
    """The name under which the hosts keep the evidence of live checks."""
    return f"{run_id}.live"


def check_live(context: RunContext, run_id: str, trial: TrialPlan) -> LiveCheck:
    """Probe the live instance in both arms. Every host is back on its baseline when this returns, or its lease runs.

    A host that fails, evidence that is damaged, or an operator who stops the run: not passed, with the reason.
    """
    context.observer(
        StepStarted(text=f"trial {trial.number}: proven; checking on the live instance that it does no harm")
    )
    plan = live_plan(trial)
    observation = Probing(plan, live_run_id(run_id), context, LiveJudge(plan)).observe()
    pairs, sequence = len(observation.sequence), observation.sequence
    if observation.failures:
        note = "; ".join(evidence.explain(error) for _, error in sorted(observation.failures.items()))
        return LiveCheck(
            passed=False,
            reason="host-failed",
            note=note,
            pairs=pairs,
            sequence=sequence,
            failed_hosts=sorted(observation.failures),
        )
    if observation.interrupted:
        return LiveCheck(passed=False, reason="interrupted", note=context.stop.why, pairs=pairs, sequence=sequence)
    live = observation.judgement
    if live is None or live.action == "continue":
        note = "the live check did not come to its end"
        return LiveCheck(passed=False, reason="guardrail-missing-data", note=note, pairs=pairs, sequence=sequence)
    folder = evidence.live_directory(context.run_directory(run_id), trial.number)
    try:
        evidence.pull(context, live_run_id(run_id), plan, observation.ends, folder)
        again, _ = evidence.judge_again(plan, folder, sequence, observation.ends, judge=judge_live)
    except evidence.EvidenceInvalid as error:
        return LiveCheck(passed=False, reason="measurement-invalid", note=str(error), pairs=pairs, sequence=sequence)
    except RatchetError as error:
        return LiveCheck(
            passed=False,
            reason="host-failed",
            note=evidence.explain(error),
            pairs=pairs,
            sequence=sequence,
            failed_hosts=named_hosts(error, plan.hosts),
        )
    if again != live:
        note = f"live: {live.action}; from the CSVs: {again.action}"
        return LiveCheck(passed=False, reason="measurement-invalid", note=note, pairs=pairs, sequence=sequence)
    return LiveCheck(
        passed=again.action == "keep",
        reason=None if again.action == "keep" else again.reason,
        note=again.note,
        effect=again.effect,
        objective=plan.experiment.objective.name,
        pairs=pairs,
        sequence=sequence,
    )
