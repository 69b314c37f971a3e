"""`controller optimize` as a durable workflow: check, plan, trial after trial. What comes out is sealed (sealing.py).

Each step is safe to run twice. A trial that was under way when the controller died is measured again from its first
pair: the host has restored its baseline by itself, and evidence of a broken-off attempt is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from dbos import DBOS, DBOSConfiguredInstance
from pydantic import TypeAdapter

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.kept import read_kept_text
from controller.judge.pareto import pareto_sets
from controller.model.errors import FleetLocked, HandEdited, Interrupted, RatchetError, RestoreUnverified
from controller.model.events import StepStarted
from controller.model.experiment import Experiment
from controller.model.run import Budget, RunPlan, RunResult, RunStatus, SearchSummary
from controller.model.trial import TrialPlan, TrialResult
from controller.workflow import engine
from controller.workflow.checking import check
from controller.workflow.context import RunContext
from controller.workflow.planning import draw_plan
from controller.workflow.quarantine import hosts_left, too_many_in_a_row
from controller.workflow.results import json_document
from controller.workflow.searching import Searched, Steps, run_race
from controller.workflow.searching_ranges import run_bayes
from controller.workflow.searching_tournament import run_tournament
from controller.workflow.settling import settle
from controller.workflow.staging import roll_back
from controller.workflow.trial import run_trial

JsonDict = dict[str, Any]


@DBOS.dbos_class()
class Optimize(DBOSConfiguredInstance):
    """The workflow with its surroundings. One instance a process."""

    def __init__(self, context: RunContext) -> None:
        super().__init__("optimize")
        self._context = context

    @DBOS.workflow(name="optimize")
    def run(self, request: JsonDict) -> JsonDict:
        """`request`: run_id, seed, started_at, experiments (documents).

        Returns `result`, RunResult as a document without what sealing adds, and `left`: host -> baseline of those that
        took part to the end.
        """
        context, run_id = self._context, request["run_id"]
        results: list[JsonDict] = []
        before: dict[str, str] = {}
        baseline: dict[str, str] = {}
        searches: list[SearchSummary] = []
        status: RunStatus = "completed"
        message = ""
        unsettled: JsonDict | None = None
        try:
            before = baseline = engine.step(
                "check the hosts", lambda: check(context, run_id, adopt=request.get("adopt", False))
            )
            plan = RunPlan.model_validate(engine.step("record the plan", lambda: self._plan(request)))
            for searched in self._search(request, plan, baseline):
                results += [json_document(result) for result in searched.results]
                searches.append(searched.summary)
                baseline = searched.baseline
                if searched.stop:
                    status, message = _stopped(searched.stop)
                    break
            for planned in _remaining(plan, results):
                trial = hosts_left(plan, planned, baseline)
                outcome = engine.step(f"trial {trial.number}", partial(run_trial, context, plan, trial, baseline))
                unsettled = outcome
                settled = engine.step(
                    f"settle trial {trial.number}",
                    partial(settle, context, run_id, trial, TrialResult.model_validate(outcome), baseline),
                )
                unsettled = None
                results.append(settled["result"])
                baseline = settled["baseline"]
                if settled["stop"]:
                    status, message = _stopped(settled["stop"])
                    break
                if too_many_in_a_row(context, results):
                    status, message = "failed", f"the last trials lost hosts, {trial.number} as well: too many in a row"
                    break
        except RatchetError as error:
            status, message = _status_of(error), str(error)
            if unsettled is not None:
                result = not_settled(TrialResult.model_validate(unsettled), error)
                results.append(json_document(result))
                message = f"trial {result.trial}: {result.note or result.reason}; then {message}"
            if baseline and not isinstance(error, RestoreUnverified):
                status, message = self._restore(baseline, status, message)
        if context.stop.taken_over and status in {"failed", "interrupted"}:
            status = "taken-over"
        trials = [TrialResult.model_validate(each) for each in results]
        experiments = [Experiment.model_validate(each) for each in request["experiments"]]
        ended = RunResult(
            run_id=run_id,
            fleet=context.fleet.name,
            seed=request["seed"],
            status=status,
            started_at=request["started_at"],
            seconds=0.0,
            trials=trials,
            baseline_before=before,
            baseline_after={},
            message=message,
            strategy=request.get("strategy", "first-winner"),
            searches=searches,
            pareto=pareto_sets(experiments, trials),
        )
        return {"result": ended.model_dump(mode="json"), "left": baseline}

    def _search(self, request: JsonDict, plan: RunPlan, baseline: dict[str, str]) -> Iterator[Searched]:
        """Search experiment after experiment; nothing for `first-winner`."""
        steps = Steps(self._context, plan, baseline)
        experiments = [Experiment.model_validate(document) for document in request["experiments"]]
        if plan.strategy == "race":
            for experiment in experiments:
                trials = [trial for trial in plan.trials if trial.experiment.name == experiment.name]
                yield run_race(steps, [hosts_left(plan, trial, steps.baseline) for trial in trials])
        elif plan.strategy == "tournament":
            first, candidates = 1, sum(len(experiment.variants) for experiment in experiments)
            for experiment in experiments:
                searched = run_tournament(steps, experiment, first=first, candidates=candidates)
                first += len(searched.results)
                yield searched
        elif plan.strategy == "bayes":
            first = 1
            for experiment in experiments:
                searched = run_bayes(steps, experiment, first=first, experiments=len(experiments))
                first += len(searched.results)
                yield searched

    def _plan(self, request: JsonDict) -> JsonDict:
        context = self._context
        experiments = [Experiment.model_validate(document) for document in request["experiments"]]
        plan = draw_plan(
            request["run_id"],
            context.fleet,
            experiments,
            seed=request["seed"],
            created_at=request["started_at"],
            strategy=request.get("strategy", "first-winner"),
            budget=Budget.model_validate(request.get("budget", {})),
        )
        what = f"{len(plan.trials)} variants"
        if plan.strategy == "tournament":
            # Its trials are matches, and who meets whom shows in playing.
            plan = plan.model_copy(update={"trials": []})
        folder = context.run_directory(plan.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "plan.json", plan.model_dump_json(indent=1) + "\n")
        write_atomically(folder / "kept.before.yml", read_kept_text(context.project, context.fleet.name))
        if plan.strategy == "bayes":
            what = f"a search of {sum(len(each.ranges) for each in experiments)} parameters"
        context.account("optimize", plan.hosts, f"{what} planned", {"run": plan.run_id, "seed": plan.seed})
        context.observer(StepStarted(text=f"plan recorded: {what} by {plan.strategy}, seed {plan.seed}"))
        document: JsonDict = json.loads(plan.model_dump_json())
        return document

    def _restore(self, baseline: dict[str, str], status: RunStatus, message: str) -> tuple[RunStatus, str]:
        """Put every host that is still ours on the baseline that the last settled trial left."""

        def restore() -> JsonDict:
            # What another run has claimed meanwhile is that run's: the lease has put the baseline back there.
            ours = {host: baseline[host] for host in self._context.claims.still_ours(baseline)}
            if ours:
                self._context.observer(StepStarted(text="putting the baseline back"))
                roll_back(self._context, ours)
            self._context.account("rollback", sorted(ours), f"the run ended early: {message}", {"baseline": ours})
            return {}

        try:
            engine.step("restore", restore)
        except HandEdited as error:
            return status, f"{message}\n{error}"
        except RatchetError as error:
            return "unverified", f"{message}\n{error}"
        return status, message


def _remaining(plan: RunPlan, results: list[JsonDict]) -> Iterator[TrialPlan]:
    """First winner: once a variant of an experiment is kept, its other variants are not tried any more."""
    for trial in plan.trials if plan.strategy == "first-winner" else []:
        won = {result["experiment"] for result in results if result["verdict"] == "KEEP"}
        if trial.experiment.name not in won:
            yield trial


def not_settled(result: TrialResult, error: RatchetError) -> TrialResult:
    """What the run tells of a trial whose verdict could not be carried out: what was measured, and never KEEP."""
    if result.verdict != "KEEP":
        return result
    note = f"{error.where}: {error.what}" if error.where else error.what
    return result.model_copy(update={"verdict": "REVERT", "reason": "commit-failed", "note": note})


def _stopped(stop: dict[str, str]) -> tuple[RunStatus, str]:
    return TypeAdapter(RunStatus).validate_python(stop["status"]), stop["message"]


def _status_of(error: RatchetError) -> RunStatus:
    if isinstance(error, RestoreUnverified):
        return "unverified"
    if isinstance(error, FleetLocked):
        return "taken-over"
    return "interrupted" if isinstance(error, Interrupted) else "failed"
