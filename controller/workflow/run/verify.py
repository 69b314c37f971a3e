"""Recompute every verdict of a sealed run from its CSVs and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.adapters.files.pruned import read_pruned
from controller.adapters.files.runs import read_run
from controller.judge.live import judge_live
from controller.judge.schedule import draw_pairs
from controller.judge.soak import judge_soak
from controller.judge.stints import judge_stints
from controller.model.errors import BadInput
from controller.model.project import Project
from controller.model.trial import Judgement, LiveCheck, Pair, SoakCheck, TrialPlan, TrialResult
from controller.workflow.trial import evidence
from controller.workflow.trial.batch import read_stints
from controller.workflow.trial.calibrate import choose_again
from controller.workflow.trial.go_live import reference_pairs
from controller.workflow.trial.phases import LIVE_CHECK, SOAK, live_plan, soak_plan, stint_plan, trial_directory

PASSED = {LIVE_CHECK.passed, SOAK.passed}
# Verdicts that were not reached by judging pairs; there is nothing to recompute.
WITHOUT_JUDGEMENT = {
    "rejected-by-nginx",
    "no-difference",
    "sockets-differ",
    "host-failed",
    "interrupted",
    "measurement-invalid",
}


def verify_run(project: Project, reference: str) -> dict[str, Any]:
    """`{"run_id", "same": bool, "pruned": when | None, "trials": [...]}`; a trial tells what was recorded, what was
    recomputed, and `same`. `pruned`: when evidence was deleted that would be needed.

    Raises BadInput when the run is unknown or was never sealed.
    """
    plan, result = read_run(project, reference)
    if result is None:
        raise BadInput("the run has no verdict yet", where=plan.run_id, next_step=f"controller resume {plan.run_id}")
    folder = project.runs / result.run_id
    trials = [_verify_trial(folder, trial) for trial in result.trials]
    # Read last: it may be pruned just now.
    mark = read_pruned(project, result.run_id)
    for trial in trials:
        trial["pruned"] = trial["pruned"] and mark is not None
        if trial["pruned"] and mark is not None:
            trial |= {"recomputed": "", "note": f"its evidence was pruned on {mark.at[:10]} by controller prune"}
    return {
        "run_id": result.run_id,
        "same": all(trial["same"] for trial in trials),
        "pruned": mark.at if mark is not None and any(trial["pruned"] for trial in trials) else None,
        "trials": trials,
    }


def _verify_trial(folder: Path, recorded: TrialResult) -> dict[str, Any]:
    """`pruned`: evidence is not there any more, which only a mark of `controller prune` explains."""
    row: dict[str, Any] = {
        "trial": recorded.trial,
        "experiment": recorded.experiment,
        "variant": recorded.variant,
        "recorded": f"{recorded.verdict} {recorded.reason}",
        "recomputed": "",
        "same": False,
        "note": "",
        "pruned": False,
    }
    if recorded.reason in WITHOUT_JUDGEMENT:
        return row | {"same": recorded.verdict == "REVERT", "note": "reached without judging pairs"}
    trial_folder = trial_directory(folder, recorded.trial)
    try:
        plan = TrialPlan.model_validate_json((trial_folder / "plan.json").read_text())
        again = _judge_again(plan, folder, recorded)
        # A search may have gone on without some of the hosts; what went live did so on those that were left.
        live = plan.model_copy(update={"hosts": recorded.hosts})
        checks = [_judge_live_again(live, folder, recorded), _judge_soak_again(live, folder, recorded)]
        if plan.calibration is not None and choose_again(folder, plan.calibration) != plan.calibration:
            raise evidence.EvidenceInvalid("the calibration's evidence gives another choice than the recorded one")
    except (OSError, ValueError, evidence.EvidenceInvalid) as error:
        is_gone = isinstance(error, evidence.EvidenceMissing)
        return row | {"recomputed": "REVERT measurement-invalid", "note": str(error), "pruned": is_gone}
    verdict, reason = "REVERT", again.reason or "undecided"
    harm = next((check for check in checks if check is not None and check.action not in PASSED), None)
    if again.action == "keep" and harm is None:
        verdict = "KEEP"
    elif again.action == "keep" and harm is not None and harm.reason is not None:
        reason = harm.reason
    if recorded.reason == "outdone" and again.action != "revert":
        # The CSVs of a variant say nothing about the one that did better.
        verdict, reason = "REVERT", "outdone"
    differences = [*_unlike_the_plan(plan, recorded), *_differences(recorded, again, verdict, reason)]
    if "KEEP" in (recorded.verdict, verdict) or recorded.reason == "commit-failed":
        differences += _unchecked(plan, recorded)
    return row | {
        "recomputed": f"{verdict} {reason}",
        "same": not differences,
        "note": "; ".join(differences),
    }


def _judge_again(plan: TrialPlan, folder: Path, recorded: TrialResult) -> Judgement:
    """The judgement from the CSVs, of one go or of all stints. Raises EvidenceInvalid, ValueError."""
    if not recorded.stints:
        again, pairs = evidence.judge_again(plan, trial_directory(folder, recorded.trial), recorded.sequence, None)
        _check_schedule(plan, pairs)
        return again
    measured = read_stints(folder, plan, recorded.stints)
    for stint, (_, pairs) in zip(recorded.stints, measured, strict=True):
        _check_schedule(stint_plan(plan, stint), pairs)
    return judge_stints(plan, measured)


def _check_schedule(plan: TrialPlan, pairs: list[Pair]) -> None:
    """The order of the arms in the CSV must be the one that the seed gives."""
    if plan.design == "fleet":
        return  # the judge itself holds each period against the groups that it draws
    timing = plan.timing
    for host in plan.hosts:
        drawn = draw_pairs(plan.seed, plan.number, host, timing.planned_pairs)
        for pair in (pair for pair in pairs if pair.host == host):
            if not 1 <= pair.number <= len(drawn):
                raise evidence.EvidenceInvalid(
                    f"{host}: pair {pair.number} is none of the {len(drawn)} that were planned"
                )
            first = "control" if pair.control.block < pair.variant.block else "variant"
            if drawn[pair.number - 1][0] != first:
                raise evidence.EvidenceInvalid(f"{host}: pair {pair.number} was not in the order that the seed gives")


def _judge_live_again(plan: TrialPlan, folder: Path, recorded: TrialResult) -> Judgement | None:
    """The live check from its CSVs; None when there was none that came to a judgement."""
    if recorded.live is None or recorded.live.reason in WITHOUT_JUDGEMENT:
        return None
    check = live_plan(plan)
    again, pairs = evidence.judge_again(
        check, LIVE_CHECK.directory(folder, plan.number), recorded.live.sequence, None, judge=judge_live
    )
    _check_schedule(check, pairs)
    return again


def _judge_soak_again(plan: TrialPlan, folder: Path, recorded: TrialResult) -> Judgement | None:
    """The soak from its CSVs; None when there was none that came to a judgement."""
    if recorded.soak is None or recorded.soak.reason in WITHOUT_JUDGEMENT:
        return None
    check = soak_plan(plan)
    blocks = evidence.read_blocks(check, SOAK.directory(folder, plan.number), recorded.soak.sequence, None)
    return judge_soak(check, reference_pairs(folder, plan, recorded), blocks)


def _unlike_the_plan(plan: TrialPlan, recorded: TrialResult) -> list[str]:
    """Where the verdict is told of something else than what the trial's plan, and so its CSVs, are of."""
    # A KEEP keeps what both arms required, where that is not the baseline's already.
    kept = dict(plan.experiment.requires) | plan.variant.parameters
    alike = recorded.verdict == "KEEP" and recorded.parameters == kept
    of_plan = {
        "experiment": plan.experiment.name,
        "variant": plan.variant.name,
        "parameters": recorded.parameters if alike else dict(plan.variant.parameters),
        "design": plan.design,
        "sockets_differ": plan.sockets_differ,
    }
    found = [
        f"{name} differs: recorded {getattr(recorded, name)}, planned {planned}"
        for name, planned in of_plan.items()
        if getattr(recorded, name) != planned
    ]
    strangers = sorted(set(recorded.hosts) - set(plan.hosts))
    return found + ([f"hosts that were not planned: {', '.join(strangers)}"] if strangers else [])


def _unchecked(plan: TrialPlan, recorded: TrialResult) -> list[str]:
    """Which checks on the live instance the plan asks of a proven variant, and did not judge it or did not pass it."""
    asked: dict[str, LiveCheck | SoakCheck | None] = {}
    if plan.design == "duet" and not plan.sockets_differ:
        asked["live check"] = recorded.live
    if plan.soak_seconds and not plan.sockets_differ:
        asked["soak"] = recorded.soak
    found = []
    for name, check in asked.items():
        if check is None:
            found.append(f"proven without its {name}")
        elif not check.passed or check.reason is not None:
            found.append(f"proven although its {name} did not pass: {check.reason or 'no reason is recorded'}")
    return found


def _differences(recorded: TrialResult, again: Judgement, verdict: str, reason: str) -> list[str]:
    found = []
    # A proven variant whose commit failed is reverted for a reason that no CSV holds.
    proven = ("KEEP", "proven-gain") if recorded.reason == "commit-failed" else (recorded.verdict, recorded.reason)
    if proven != (verdict, reason):
        found.append("the verdict differs")
    return found + [
        f"{name} differs: recorded {getattr(recorded, name)}, recomputed {getattr(again, name)}"
        for name in ("evidence", "effect", "confirmed_effect", "goals")
        if getattr(recorded, name) != getattr(again, name)
    ]
