"""A search as durable steps: each proposal and each stint is recorded, so that a killed run goes on where it was.

The ledger is nothing but the recorded stints; the proposers (controller/search) are asked again from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from controller.judge.stints import judge_stints
from controller.model.experiment import ParameterValue
from controller.model.run import RunPlan, SearchSummary
from controller.model.steps import GoneOn, RunStop, Settled
from controller.model.trial import ReasonCode, Stint, TrialPlan, TrialResult
from controller.search import race
from controller.search.ledger import Entry, Proposal, Stop, Try, seconds_spent
from controller.workflow import engine
from controller.workflow.context import RunContext
from controller.workflow.fleet.quarantine import go_on_without, hosts_left
from controller.workflow.trial import evidence
from controller.workflow.trial.apply_verdict import settle
from controller.workflow.trial.batch import Question, read_stints, run_stint
from controller.workflow.trial.go_live import go_live
from controller.workflow.trial.phases import recorded_plan
from controller.workflow.trial.results import trial_result

# What ends the run, not only the variant: the host is the problem, or the operator.
RUN_ENDS = frozenset({"host-failed", "interrupted"})
# What is told of a variant that was running when its search failed.
BROKE_OFF = "the search broke off before its end"
_PROPOSAL: TypeAdapter[Proposal] = TypeAdapter(Proposal)


@dataclass
class Searched:
    """What the search of one experiment left."""

    results: list[TrialResult]
    baseline: dict[str, str]
    summary: SearchSummary
    stop: RunStop | None = None


@dataclass
class Steps:
    """The steps of one run's searches; the stints are numbered through the run.

    `lost_in_a_row` counts what was lost to broken hosts since something was last measured. `unsettled` gives what a
    search has come to, until its verdict is carried out.
    """

    context: RunContext
    plan: RunPlan
    baseline: dict[str, str]
    stints: int = 0
    ledger: list[Entry] = field(default_factory=list)
    lost_in_a_row: int = 0
    unsettled: Callable[[], list[TrialResult]] = list

    @property
    def run_directory(self) -> Path:
        return self.context.run_directory(self.plan.run_id)

    def propose(self, ask: Callable[[], Proposal]) -> Proposal:
        name = f"propose stint {self.stints + 1}"
        return engine.step(name, ask, _PROPOSAL)

    def measure(
        self,
        trial: TrialPlan,
        proposal: Try,
        *,
        earlier: Sequence[Entry] = (),
        trials_in_run: int,
        control: dict[str, ParameterValue] | None = None,
    ) -> Entry:
        """One stint; in the ledger too, unless its control is not the baseline.

        One that is lost to a broken host is measured again without that host, where the fleet's settings say so.
        """
        while True:
            self.stints += 1
            question = Question(
                trial=hosts_left(self.plan, trial, self.baseline),
                stint=Stint(number=self.stints, alone=proposal.alone, pairs_per_host=proposal.pairs_per_host),
                earlier=[entry.stint for entry in earlier],
                trials_in_run=trials_in_run,
                why=proposal.why,
                control=control,
            )
            name = f"stint {self.stints}"
            stint = partial(run_stint, self.context, self.plan.run_id, question, self.baseline)
            entry = engine.step(name, stint, Entry)
            lost = dict.fromkeys(entry.failed_hosts, entry.note) if entry.ended == "host-failed" else {}
            if control is None:
                self.ledger.append(entry)
            if not self.goes_on(name, lost):
                return entry
            if control is None:
                self.ledger.pop()

    def goes_on(self, what: str, lost: dict[str, str]) -> bool:
        """Whether what was lost to broken hosts (host -> why) is to be done again, on the others that are left."""
        if not lost:
            self.lost_in_a_row = 0
            return False
        self.lost_in_a_row += 1
        leave = partial(go_on_without, self.context, self.plan.run_id, self.baseline, lost)
        left = engine.step(f"go on after {what}", leave, GoneOn)
        self.baseline = left.baseline
        return left.enough and not self.too_many_lost

    @property
    def too_many_lost(self) -> bool:
        return self.lost_in_a_row >= self.context.fleet.settings.trials.failures_in_a_row

    def settle(self, trial: TrialPlan, results: list[TrialResult], at: int) -> tuple[TrialResult, RunStop | None]:
        """Commit a KEEP everywhere, or roll back; returns `results[at]` then, and how the run stops, if it does.

        `results`: of the whole search, which are told also where this fails.
        """
        self.unsettled = lambda: results
        result = results[at]
        settled = engine.step(
            f"settle trial {trial.number}",
            lambda: settle(self.context, self.plan.run_id, trial, result, self.baseline),
            Settled,
        )
        self.baseline, self.unsettled = settled.baseline, list
        stop = settled.stop
        if stop is None and self.too_many_lost:
            message = f"{self.lost_in_a_row} attempts in a row were lost to broken hosts"
            stop = RunStop(status="failed", message=message)
        return settled.result, stop

    def live(self, trial: TrialPlan, result: TrialResult) -> TrialResult:
        """A KEEP after its check on the live instance and its soak."""
        if result.verdict != "KEEP":
            return result
        plan = recorded_plan(self.run_directory, trial).model_copy(update={"hosts": result.hosts})
        return engine.step(
            f"live check of trial {trial.number}",
            lambda: go_live(self.context, self.plan.run_id, plan, result, self.baseline),
            TrialResult,
        )


def run_race(steps: Steps, trials: list[TrialPlan]) -> Searched:
    """Race the variants of one experiment; at most one is kept."""
    start = len(steps.ledger)
    plans = {plan.number: plan for plan in trials}
    total = len(steps.plan.trials)
    steps.unsettled = lambda: gather(steps, plans, steps.ledger[start:], BROKE_OFF)
    while True:
        ledger = steps.ledger[start:]
        proposal = steps.propose(partial(race.propose, trials, steps.plan.seed, ledger))
        if isinstance(proposal, Stop):
            break
        earlier = [entry for entry in ledger if entry.trial == proposal.trial]
        entry = steps.measure(plans[proposal.trial], proposal, earlier=earlier, trials_in_run=total)
        if entry.ended in RUN_ENDS:
            proposal = Stop(why=f"stint {entry.stint.number}: {entry.note or entry.ended}")
            break
    ledger = steps.ledger[start:]
    names = [plans[trial].variant.name for trial in proposal.ranking]
    results = gather(steps, plans, ledger, f"{names[0]} did better" if names else "the race ended without it")
    order = [result.trial for result in results]
    # Who decides the experiment is settled: the winner, else the last that was measured.
    decided = proposal.ranking[0] if proposal.ranking else ledger[-1].trial
    at = order.index(decided)
    steps.unsettled = lambda: results
    results[at] = steps.live(plans[decided], results[at])
    results[at], stop = steps.settle(recorded_plan(steps.run_directory, plans[decided]), results, at)
    kept = results[at].verdict == "KEEP"
    return Searched(
        results=results,
        baseline=steps.baseline,
        summary=SearchSummary(
            experiment=trials[0].experiment.name,
            stopped=proposal.why,
            tried=len(results),
            stints=len(ledger),
            seconds=round(seconds_spent(ledger), 1),
            winner=results[at].variant if kept else "",
        ),
        stop=stop,
    )


def gather(steps: Steps, plans: dict[int, TrialPlan], ledger: Sequence[Entry], outdone: str) -> list[TrialResult]:
    """A result for each trial of the ledger, in order of number."""
    numbers = sorted({entry.trial for entry in ledger})
    return [
        result_of(
            steps.context, steps.plan.run_id, plans[number], [e for e in ledger if e.trial == number], outdone=outdone
        )
        for number in numbers
    ]


def result_of(
    context: RunContext,
    run_id: str,
    trial: TrialPlan,
    entries: Sequence[Entry],
    *,
    outdone: str,
    against: str = "",
    default: ReasonCode = "outdone",
) -> TrialResult:
    """The result of a trial from its stints: the figures are those of the CSVs.

    `default` is the reason of a trial that nothing ended.
    """
    trial = recorded_plan(context.run_directory(run_id), trial)
    last = entries[-1]
    reason: ReasonCode = last.ended or default
    # A stint that failed has no evidence; those before it have.
    stints = [entry.stint for entry in entries if entry.stint.sequence and entry.ended not in RUN_ENDS]
    try:
        measured = read_stints(context.run_directory(run_id), trial, stints)
        again = judge_stints(trial, measured) if measured else None
    except (evidence.EvidenceInvalid, ValueError) as error:
        measured, again, reason = [], None, "measurement-invalid"
        last = last.model_copy(update={"note": str(error)})
    pairs = [pair for _, each in measured for pair in each]
    result = trial_result(
        trial,
        again,
        pairs,
        reason=reason,
        note=outdone if last.ended is None and default == "outdone" else last.note,
        seconds=sum(entry.seconds for entry in entries),
    )
    return result.model_copy(
        update={
            "sequence": [host for stint in stints for host in stint.sequence],
            "stints": stints,
            "hosts": last.stint.hosts or trial.hosts,
            "against": against,
            "failed_hosts": last.failed_hosts,
        }
    )
