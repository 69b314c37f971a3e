"""`controller optimize` as a durable workflow: check, plan, trial after trial. What comes out is sealed (sealing.py).

Each step is safe to run twice. A trial that was under way when the controller died is measured again from its first
pair: the host has restored its baseline by itself, and evidence of a broken-off attempt is not looked at.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import NoneType
from typing import Any

from dbos import DBOS, DBOSConfiguredInstance

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.kept import check_kept, read_kept_text
from controller.adapters.patience import tries
from controller.adapters.secrets import hidden
from controller.adapters.store import commits_of, read_commit, record_plan
from controller.judge.pareto import pareto_sets
from controller.model.commit import Commit
from controller.model.errors import (
    BadInput,
    FleetLocked,
    HandEdited,
    HostFailed,
    Interrupted,
    RatchetError,
    RestoreUnverified,
    Unexpected,
    unexpected,
)
from controller.model.events import Notice, StepStarted
from controller.model.run import RunPlan, RunResult, RunStatus, SearchSummary, Strategy
from controller.model.steps import RunEnded, RunRequest, Settled, WhoHasIt
from controller.model.trial import ReasonCode, TrialPlan, TrialResult
from controller.workflow import engine
from controller.workflow.context import RunContext
from controller.workflow.fleet.booking import INSIST_SECONDS
from controller.workflow.fleet.committing import told_confirmed
from controller.workflow.fleet.configurations import on_record, roll_back
from controller.workflow.fleet.quarantine import hosts_left, too_many_in_a_row
from controller.workflow.run.check_hosts import check
from controller.workflow.run.plan import draw_plan
from controller.workflow.search.race import Searched, Steps, run_race
from controller.workflow.search.ranges import run_bayes
from controller.workflow.trial.apply_verdict import commit_id, settle
from controller.workflow.trial.phases import recorded_plan
from controller.workflow.trial.run import run_trial, take_live

JsonDict = dict[str, Any]

# Host -> baseline as the run found it; with kept.before.yml what `rollback --before` goes to.
BEFORE_FILE = "baseline.before.json"


@dataclass
class _Run:
    """How far a run has come. `unsettled`: a trial's result while its verdict is carried out."""

    run_id: str
    strategy: Strategy
    status: RunStatus = "completed"
    message: str = ""
    results: list[TrialResult] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    baseline: dict[str, str] = field(default_factory=dict)
    searches: list[SearchSummary] = field(default_factory=list)
    unsettled: TrialResult | None = None
    search: Steps | None = None

    def broken_off(self, error: RatchetError) -> None:
        """Why the run ends, and on which baseline."""
        self.status, self.message = _status_of(error), str(error)
        if self.search is not None and self.strategy != "first-winner":
            self.baseline = self.search.baseline

    def unsettled_results(self) -> list[TrialResult]:
        """What was measured, and whose verdict was not carried out."""
        if self.unsettled is not None:
            return [self.unsettled]
        return self.search.unsettled() if self.search is not None and self.strategy != "first-winner" else []


@DBOS.dbos_class()
class Optimize(DBOSConfiguredInstance):
    """The workflow with its surroundings. One instance a run."""

    def __init__(self, context: RunContext, run_id: str) -> None:
        super().__init__(run_id)
        self._context = context

    @DBOS.workflow(name="optimize")
    def run(self, request: JsonDict) -> JsonDict:
        """`request` is a RunRequest, what is returned a RunEnded, both as documents."""
        asked = RunRequest.model_validate(request)
        run = _Run(asked.run_id, asked.strategy)
        try:
            self._work(asked, run)
        except Exception as caught:
            if type(caught).__module__.startswith("dbos"):
                raise
            error = caught if isinstance(caught, RatchetError) else unexpected(caught, "the run")
            self._keep_traceback(run.run_id, error)
            run.broken_off(error)
            if run.baseline and not isinstance(error, RestoreUnverified):
                self._restore(run)
            # After the hosts: what cannot be told must not be in their way.
            self._tell_unsettled(run, error)
        if self._context.stop.taken_over and run.status in {"failed", "interrupted"}:
            run.status = "taken-over"
        ended = RunResult(
            run_id=run.run_id,
            fleet=self._context.fleet.name,
            seed=asked.seed,
            status=run.status,
            started_at=asked.started_at,
            seconds=0.0,
            trials=run.results,
            baseline_before=run.before,
            baseline_after={},
            message=run.message,
            strategy=run.strategy,
            searches=run.searches,
            pareto=pareto_sets(asked.experiments, run.results),
        )
        kept = engine.step("record the end", lambda: kept_by(self._context, run.run_id, run.before, run.baseline), str)
        return RunEnded(result=ended, left=run.baseline, kept=kept).model_dump(mode="json")

    def _work(self, request: RunRequest, run: _Run) -> None:
        """Check, plan, trial after trial; what comes of it is in `run`, however this ends."""
        context = self._context
        run.before = run.baseline = engine.step(
            "check the hosts", lambda: check(context, run.run_id, adopt=request.adopt), dict[str, str]
        )
        plan = engine.step("record the plan", lambda: self._plan(request, run.before), RunPlan)
        run.search = Steps(context, plan, run.baseline)
        for searched in self._search(request, plan, run.search):
            run.results += searched.results
            run.searches.append(searched.summary)
            run.baseline = searched.baseline
            if searched.stop:
                run.status, run.message = searched.stop.status, searched.stop.message
                return
        for planned in _remaining(plan, run.results):
            trial = hosts_left(plan, planned, run.baseline)
            measure = partial(run_trial, context, plan, trial, run.baseline)
            result = run.unsettled = engine.step(f"trial {trial.number}", measure, TrialResult)
            if result.verdict == "KEEP":
                live = partial(take_live, context, run.run_id, trial, result, run.baseline)
                result = run.unsettled = engine.step(f"live check of trial {trial.number}", live, TrialResult)
            # With the configurations that were measured: those are what a KEEP commits.
            measured = recorded_plan(context.run_directory(run.run_id), trial)
            carry_out = partial(settle, context, run.run_id, measured, result, run.baseline)
            settled = engine.step(f"settle trial {trial.number}", carry_out, Settled)
            run.unsettled = None
            run.results.append(settled.result)
            run.baseline = settled.baseline
            if settled.stop:
                run.status, run.message = settled.stop.status, settled.stop.message
                return
            if too_many_in_a_row(context, run.results):
                run.status = "failed"
                run.message = f"the last trials lost hosts, {trial.number} as well: too many in a row"
                return

    def _tell_unsettled(self, run: _Run, error: RatchetError) -> None:
        try:
            told = [self._not_settled(run, result, error) for result in run.unsettled_results()]
        except Exception as fault:
            self._keep_traceback(run.run_id, unexpected(fault, "the trials that were under way"))
            run.message += f"\nwhat was under way cannot be told: {fault}"[:500]
            return
        run.results += told
        if run.unsettled is not None:
            run.message = f"trial {told[0].trial}: {told[0].note or told[0].reason}; then {run.message}"

    def _not_settled(self, run: _Run, result: TrialResult, error: RatchetError) -> TrialResult:
        """What the run tells of a trial whose verdict was not carried out to its end.

        It is KEEP only where hosts have confirmed the variant: that is so, whatever came after, and is finished next.
        """
        if result.verdict != "KEEP":
            return result
        found = engine.step(
            f"ask who has trial {result.trial}",
            partial(self._who_has_it, commit_id(run.run_id, result.trial)),
            WhoHasIt,
        )
        if found.confirmed:
            run.status = "unverified" if run.status == "failed" else run.status
            run.baseline |= found.after
            run.message += (
                f"\n{found.why} is confirmed on {', '.join(found.confirmed)}; next: controller rollback --fleet "
                f"{self._context.fleet.name} (it finishes this; controller rollback --before {run.run_id} undoes it)"
            )
            return result
        note = f"{error.where}: {error.what}" if error.where else error.what
        broken: ReasonCode = "interrupted" if isinstance(error, Interrupted) else "host-failed"
        reason = "commit-failed" if found.begun else broken
        return result.model_copy(update={"verdict": "REVERT", "reason": reason, "note": note})

    def _who_has_it(self, commit: str) -> WhoHasIt:
        """Of a commit: whether it was begun, and who has confirmed it: by the record, or by their own word."""
        recorded = read_commit(self._context.store, commit)
        if recorded is None:
            return WhoHasIt()
        confirmed: list[str] = []
        if recorded.forward:
            confirmed = recorded.confirmed if recorded.begun else told_confirmed(self._context, recorded)[0]
        return WhoHasIt(begun=True, confirmed=confirmed, after=recorded.after, why=recorded.why)

    def _keep_traceback(self, run_id: str, error: RatchetError) -> None:
        if isinstance(error, Unexpected):
            with contextlib.suppress(HostFailed, OSError):
                write_atomically(self._context.run_directory(run_id) / "traceback.txt", hidden(error.traceback))

    def _search(self, request: RunRequest, plan: RunPlan, steps: Steps) -> Iterator[Searched]:
        """Search experiment after experiment; nothing for `first-winner`."""
        experiments = request.experiments
        if plan.strategy == "race":
            for experiment in experiments:
                trials = [trial for trial in plan.trials if trial.experiment.name == experiment.name]
                yield run_race(steps, [hosts_left(plan, trial, steps.baseline) for trial in trials])
        elif plan.strategy == "bayes":
            first = 1
            for experiment in experiments:
                searched = run_bayes(steps, experiment, first=first, experiments=len(experiments))
                first += len(searched.results)
                yield searched

    def _plan(self, request: RunRequest, before: dict[str, str]) -> RunPlan:
        context = self._context
        # What is proven can be kept: nothing is measured where it could not be.
        check_kept(context.project, context.fleet.name)
        plan = draw_plan(
            request.run_id,
            context.fleet,
            request.experiments,
            seed=request.seed,
            created_at=request.started_at,
            strategy=request.strategy,
            budget=request.budget,
        )
        what = f"{len(plan.trials)} variants"
        folder = context.run_directory(plan.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "plan.json", plan.model_dump_json(indent=1) + "\n")
        write_atomically(folder / "kept.before.yml", read_kept_text(context.project, context.fleet.name))
        write_atomically(folder / BEFORE_FILE, json.dumps(before))
        record_plan(context.store, plan)
        if plan.strategy == "bayes":
            what = f"a search of {sum(len(each.ranges) for each in request.experiments)} parameters"
        context.observer(StepStarted(text=f"plan recorded: {what} by {plan.strategy}, seed {plan.seed}"))
        return plan

    def _restore(self, run: _Run) -> None:
        """Put every host that is still ours on the baseline that the last settled trial left."""

        def restore() -> None:
            # What another run has claimed meanwhile is that run's: the lease has put the baseline back there.
            ours = {host: run.baseline[host] for host in self._context.claims.still_ours(run.baseline)}
            ours = on_record(self._context, ours)
            if ours:
                why, evidence = f"the run ends early: {run.message}", {"run": run.run_id, "baseline": ours}
                with self._context.accounted("rollback", sorted(ours), why, evidence, always=True):
                    self._context.observer(StepStarted(text="putting the baseline back"))
                    roll_back(self._context, ours)

        try:
            engine.step("restore", restore, NoneType)
        except HandEdited as error:
            run.message = f"{run.message}\n{error}"
        except RatchetError as error:
            run.status, run.message = "unverified", f"{run.message}\n{error}"


def kept_by(context: RunContext, run_id: str, before: dict[str, str], left: dict[str, str]) -> str:
    """The text of zz-kept.yml that goes with the baselines that a run has left; empty, and told, where it is not known.

    Of a run that ends late a later one may have written it since: its own is what it found, or committed last. Where
    the hosts were left with what somebody has deployed meanwhile, it is what the file says now.
    """
    found = context.run_directory(run_id) / "kept.before.yml"
    try:
        own, text = dict(before), found.read_text()
        for commit in _commits_of(context, run_id):
            # Booked; or to be, by whoever comes next, with this text.
            if commit.booked or (commit.forward and commit.begun):
                own, text = own | commit.after, commit.kept_after
        if all(own.get(host) == configuration for host, configuration in left.items()):
            return text
    except OSError:
        pass  # it ended before it had written what it found
    except HostFailed as error:
        context.observer(Notice(level="warning", text=f"what the run has kept is not known: {error}"))
    try:
        return read_kept_text(context.project, context.fleet.name)
    except BadInput as error:
        context.observer(Notice(level="warning", text=str(error)))
        return ""


def _commits_of(context: RunContext, run_id: str) -> list[Commit]:
    """Of a run at its end, which waits for a database that is locked. Raises HostFailed."""
    for pause in tries(INSIST_SECONDS[:5]):
        with contextlib.suppress(HostFailed):
            return commits_of(context.store, run_id)
        time.sleep(pause)
    return commits_of(context.store, run_id)


def _remaining(plan: RunPlan, results: list[TrialResult]) -> Iterator[TrialPlan]:
    """First winner: once a variant of an experiment is kept, its other variants are not tried any more."""
    for trial in plan.trials if plan.strategy == "first-winner" else []:
        won = {result.experiment for result in results if result.verdict == "KEEP"}
        if trial.experiment.name not in won:
            yield trial


def _status_of(error: RatchetError) -> RunStatus:
    if isinstance(error, RestoreUnverified):
        return "unverified"
    if isinstance(error, FleetLocked):
        return "taken-over"
    return "interrupted" if isinstance(error, Interrupted) else "failed"
