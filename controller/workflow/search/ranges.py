"""The search of an experiment's ranges: propose and look, confirm, prune, confirm the smaller diff, commit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from controller.adapters.files.parameters import known_parameters
from controller.adapters.inventory import read_inventory
from controller.adapters.ssh import connect
from controller.model.errors import HostFailed, Interrupted, RatchetError
from controller.model.experiment import Experiment, ParameterValue, Variant
from controller.model.fleet import Host
from controller.model.run import Importance, SearchSummary
from controller.model.steps import Limits, RunStop
from controller.model.trial import ReasonCode, TrialPlan, TrialResult
from controller.search import bayes
from controller.search.ledger import Entry, Stop, Try, seconds_spent, standings
from controller.search.pruning import (
    HOLD_PAIRS,
    PRUNE_PAIRS,
    Removal,
    answer,
    concluded,
    holds,
    larger,
    next_removal,
)
from controller.search.safe_space import Capacity, unsafe
from controller.workflow import engine
from controller.workflow.context import RunContext
from controller.workflow.fleet.hosts import on_each_host
from controller.workflow.fleet.quarantine import hosts_left, named_hosts
from controller.workflow.search.race import BROKE_OFF, RUN_ENDS, Searched, Steps, gather, result_of
from controller.workflow.trial.phases import recorded_plan
from controller.workflow.trial.plan import planned_trial
from controller.workflow.trial.run import run_trial, take_live, without_pairs

# cgroup limits count where there are any: a container shows the machine's memory in /proc.
_CAPACITY_COMMAND = (
    "awk '/^MemTotal:/ {print $2 * 1024}' /proc/meminfo; cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max; nproc; "
    "systemctl show nginx --property LimitNOFILE --value"
)


def read_capacity(host: Host) -> Capacity:
    """Memory, CPUs and the limit of open files of one host. Raises HostFailed, Transient."""
    with connect(host, user=host.admin_user) as ssh:
        _, out, err = ssh.run(_CAPACITY_COMMAND, timeout=30)
    try:
        memory, limit, cpus, files = out.split()
        return Capacity(
            memory_bytes=min(int(float(memory)), int(limit) if limit != "max" else 2**63),
            cpus=int(cpus),
            open_files=int(files) if files.isdigit() else 2**31,
        )
    except ValueError:
        raise HostFailed(
            f"its memory and limits cannot be read: {(err or out).strip()[:200]}",
            where=host.name,
            next_step="run playbooks/site.yml on it",
        ) from None


def smallest_capacity(context: RunContext, hosts: Sequence[str]) -> Capacity:
    """What every host of a trial has at least."""
    answers, failures = on_each_host([host for host in context.fleet.hosts if host.name in hosts], read_capacity)
    for error in failures.values():
        raise error
    return Capacity(
        memory_bytes=min(each.memory_bytes for each in answers.values()),
        cpus=max(each.cpus for each in answers.values()),
        open_files=min(each.open_files for each in answers.values()),
    )


def run_bayes(steps: Steps, experiment: Experiment, *, first: int, experiments: int) -> Searched:
    """Search the ranges of one experiment; `first`: the number of its first trial. At most one variant is kept."""
    search = _RangeSearch(steps, experiment, first, experiments)
    steps.unsettled = search.results
    search.explore()
    search.confirm()
    search.prune()
    return search.settle()


class _RangeSearch:
    """One experiment's search, phase after phase; each is durable, and is skipped once the run has to end."""

    def __init__(self, steps: Steps, experiment: Experiment, first: int, experiments: int) -> None:
        self._steps = steps
        self._experiment = experiment
        self._first = first
        # How many variants of the run may be proven on fresh pairs: the finalists, and each pruned one.
        self._may_be_proven = experiments * (bayes.FINALISTS + 1)
        self._start = len(steps.ledger)
        self._plans: dict[int, TrialPlan] = {}
        self._results: list[TrialResult] = []
        self._ranking: list[int] = []
        self._answers: list[Importance] = []
        self._winner: tuple[TrialPlan, TrialResult] | None = None
        self._stopped = ""
        self._ended_early = False

    def results(self) -> list[TrialResult]:
        """What it has come to so far: what it has looked at, while it explores."""
        return self._results or gather(self._steps, self._plans, self._ledger, BROKE_OFF)

    @property
    def _ledger(self) -> list[Entry]:
        return self._steps.ledger[self._start :]

    # --- looking ------------------------------------------------------------------------------------------------------

    def explore(self) -> None:
        """Look at settings until the budget is spent, or more of it brings too little."""
        steps, experiment = self._steps, self._experiment
        limits = self._read_limits(f"limits for {experiment.name}")
        capacity, known = Capacity(limits.memory_bytes, limits.cpus, limits.open_files), limits.known

        def refuse(parameters: dict[str, ParameterValue]) -> str:
            complete = known | dict(experiment.requires)
            return unsafe({**complete, **parameters}, complete, capacity, experiment.constraints)

        search = bayes.SearchPlan(
            experiment=experiment,
            seed=steps.plan.seed,
            budget=steps.plan.budget,
            hosts=len(limits.hosts),
            unsafe=refuse,
            first=self._first,
        )
        while True:
            ledger = self._ledger
            proposal = steps.propose(partial(bayes.propose, search, ledger))
            if isinstance(proposal, Stop):
                self._ranking, self._stopped = proposal.ranking, proposal.why
                break
            plan = self._plan(proposal.trial, proposal.variant)
            earlier = [entry for entry in ledger if entry.trial == proposal.trial]
            entry = steps.measure(plan, proposal, earlier=earlier, trials_in_run=steps.plan.budget.trials)
            if entry.ended in RUN_ENDS:
                self._stopped, self._ended_early = entry.note or str(entry.ended), True
                break
        self._results = gather(steps, self._plans, self._ledger, "the search found better, or its gain was not enough")

    def _read_limits(self, name: str) -> Limits:
        """Of the hosts that are left. Raises what a host's failure was where the run does not go on without it."""
        while True:
            try:
                return engine.step(name, self._limits, Limits)
            except HostFailed as error:
                lost = dict.fromkeys(named_hosts(error, list(self._steps.baseline)), error.what)
                if not self._steps.goes_on(name, lost):
                    raise

    def _limits(self) -> Limits:
        context = self._steps.context
        hosts = self._plan(1, Variant(name="none", parameters=dict.fromkeys(self._experiment.ranges, 0))).hosts
        self._plans.clear()
        capacity = smallest_capacity(context, hosts)
        return Limits(
            hosts=hosts,
            memory_bytes=capacity.memory_bytes,
            cpus=capacity.cpus,
            open_files=capacity.open_files,
            known=known_parameters(context.project, read_inventory(context.project, context.fleet.name).hosts.values()),
        )

    def _plan(self, number: int, variant: Variant, experiment: Experiment | None = None) -> TrialPlan:
        run = self._steps.plan
        planned = planned_trial(run, number, experiment or self._experiment, variant, variants=self._may_be_proven)
        self._plans[number] = hosts_left(run, planned, self._steps.baseline)
        return self._plans[number]

    # --- proving ------------------------------------------------------------------------------------------------------

    def confirm(self) -> None:
        """Prove the finalists on fresh pairs, the best first; the first that is proven goes on."""
        standing = standings(self._ledger)
        for trial in self._ranking:
            if self._winner or self._ended_early:
                return
            variant = standing[trial].variant.model_copy(update={"name": f"final-{trial}"})
            plan, result = self._prove(variant)
            if result.verdict == "KEEP":
                self._winner = (plan, result)

    def _prove(self, variant: Variant) -> tuple[TrialPlan, TrialResult]:
        """An ordinary trial against the baseline, with its live check; nothing is committed yet."""
        while True:
            plan = self._plan(self._first + len(self._results), variant)
            name = f"trial {plan.number}"
            result = engine.step(name, partial(self._run, plan), TrialResult)
            self._results.append(result)
            lost = dict.fromkeys(result.failed_hosts, result.note) if result.reason == "host-failed" else {}
            if not self._steps.goes_on(name, lost):
                break
        if result.reason in RUN_ENDS:
            self._stopped, self._ended_early = result.note or result.reason, True
        return plan, result

    def _run(self, plan: TrialPlan) -> TrialResult:
        """A trial and its live check, whose failures end the search and not what it has found out."""
        steps, result = self._steps, None
        try:
            result = run_trial(steps.context, steps.plan, plan, steps.baseline)
            if result.verdict != "KEEP":
                return result
            return take_live(steps.context, steps.plan.run_id, plan, result, steps.baseline)
        except RatchetError as error:
            reason: ReasonCode = "interrupted" if isinstance(error, Interrupted) else "host-failed"
            result = result or without_pairs(plan, reason, "")
            told = {"verdict": "REVERT", "reason": reason, "note": str(error)}
            return result.model_copy(update=told | {"failed_hosts": named_hosts(error, plan.hosts)})

    # --- pruning ------------------------------------------------------------------------------------------------------

    def prune(self) -> None:
        """Leave out what costs nothing that can be shown; the smaller diff must hold the gain, and prove itself."""
        if self._winner is None:
            return
        plan, proven = self._winner
        winner = dict(plan.variant.parameters)
        while True:
            asked = next_removal(self._experiment, winner, self._answers)
            if not isinstance(asked, Removal):
                break
            name = f"without-{asked.parameter.removeprefix('nginx_').replace('_', '-')}"[:63].rstrip("-")
            why = f"is {asked.parameter} worth keeping?"
            variant = Variant(name=name, parameters=asked.variant)
            result = self._ask(variant, asked.control, plan.variant.name, pairs=PRUNE_PAIRS, why=why)
            if self._ended_early:
                return
            self._answers.append(answer(self._experiment, asked, result))
        left = self._held(asked, plan.variant)
        if self._ended_early:
            return
        self._answers = concluded(self._answers, asked, left, experiment=self._experiment.name, trial=plan.number)
        if left == winner:
            return
        smaller = Variant(name=plan.variant.name.replace("final", "pruned"), parameters=left)
        pruned_plan, pruned = self._prove(smaller)
        if pruned.verdict == "KEEP" and not self._ended_early:
            self._replace(proven, f"{smaller.name} holds the gain with {len(left)} of {len(winner)} parameters")
            self._winner = (pruned_plan, pruned)

    def _held(self, left: dict[str, ParameterValue], whole: Variant) -> dict[str, ParameterValue]:
        """The smallest of the diffs that are tried which holds the winner's gain; at last the winner itself."""
        least, winner = self._experiment.objective.minimum_effect, dict(whole.parameters)
        while left != winner:
            smaller = Variant(name=f"left-{len(left)}-of-{len(winner)}", parameters=left)
            result = self._ask(smaller, winner, whole.name, pairs=HOLD_PAIRS, why="does it hold the gain?")
            if self._ended_early or holds(result, least):
                break
            left = larger(self._experiment, winner, left, self._answers)
        return left

    def _ask(
        self, variant: Variant, control: dict[str, ParameterValue], against: str, *, pairs: int, why: str
    ) -> TrialResult:
        """One duet of a part of the winner, the variant, against more of it."""
        steps = self._steps
        # With a minimum effect of zero, futility is evidence of harm and nothing else.
        objective = self._experiment.objective.model_copy(update={"minimum_effect": 0.0})
        experiment = self._experiment.model_copy(update={"objective": objective})
        plan = self._plan(self._first + len(self._results), variant, experiment)
        proposal = Try(
            trial=plan.number,
            variant=plan.variant,
            pairs_per_host=math.ceil(pairs / len(plan.hosts)),
            why=why,
        )
        entry = steps.measure(plan, proposal, trials_in_run=plan.number, control=control)
        result = result_of(
            steps.context, steps.plan.run_id, plan, [entry], outdone="", against=against, default="undecided"
        )
        self._results.append(result)
        if result.reason in RUN_ENDS:
            # Proven is proven: the winner is kept as it is, unless the operator or a host ends the run.
            self._stopped, self._ended_early = result.note or result.reason, True
        return result

    def _replace(self, result: TrialResult, note: str) -> None:
        """A proven variant that is not kept, because another is."""
        at = self._results.index(result)
        self._results[at] = result.model_copy(update={"verdict": "REVERT", "reason": "outdone", "note": note})

    # --- ending -------------------------------------------------------------------------------------------------------

    def settle(self) -> Searched:
        steps = self._steps
        if not self._results:
            return self._searched("", None)
        if self._winner is not None and not self._ended_early:
            plan, result = self._winner
        else:
            if self._winner is not None:
                self._replace(self._winner[1], f"the search ended early: {self._stopped}")
            # What ended the search early is what has to be settled.
            ends = [each for each in self._results if self._ended_early and each.reason in RUN_ENDS]
            result = (ends or self._results)[-1]
            plan = self._plans[result.trial]
        at = next(index for index, each in enumerate(self._results) if each.trial == result.trial)
        self._results[at], stop = steps.settle(recorded_plan(steps.run_directory, plan), self._results, at)
        return self._searched(self._results[at].variant if self._results[at].verdict == "KEEP" else "", stop)

    def _searched(self, winner: str, stop: RunStop | None) -> Searched:
        return Searched(
            results=self._results,
            baseline=self._steps.baseline,
            summary=SearchSummary(
                experiment=self._experiment.name,
                stopped=self._stopped,
                tried=len(standings(self._ledger)),
                stints=len(self._ledger),
                seconds=round(seconds_spent(self._ledger), 1),
                winner=winner,
                importance=self._answers,
            ),
            stop=stop,
        )
