"""Delete what is not needed any more of runs that have ended: their evidence, and the engine's record of their steps.

Every run that measured keeps its plan, verdicts and effects, its settings before and after, and its rows: `show`,
`rollback --to` and `--before`, and the account of a year's decisions need them. Only a run that never came to a plan
goes whole. A run that has ended is nobody's any more, so no fleet is held meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from controller.adapters.audit import Accounts
from controller.adapters.files.kept import read_kept_text
from controller.adapters.files.pruned import (
    Size,
    delete_evidence,
    delete_run,
    evidence_of,
    whole_size,
)
from controller.adapters.files.runs import RUN_ID, read_documents, run_ids
from controller.adapters.store import (
    FleetLock,
    RecordedRun,
    Store,
    count_ended_rollbacks,
    forget_ended_rollbacks,
    forget_runs,
    held_row,
    open_commits,
    runs_on_record,
    trials_on_record,
)
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project

YEAR = timedelta(days=365)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Limits:
    """What is old: ended runs that began before `before`, but for the `newest` of each fleet."""

    now: datetime
    days: int
    newest: int

    @property
    def before(self) -> datetime:
        return self.now - timedelta(days=self.days)


@dataclass
class Pruning:
    """What is deleted of one fleet, and what is kept.

    `evidence` and `whole`: run -> what goes of it, or all of it. `kept`: run -> why its evidence stays.
    `rollbacks`: how many records of rollbacks that are done. `workflows`: runs whose recorded steps go.
    `decisions`: trials of the last year, whose verdicts and effects stay.
    """

    fleet: str
    evidence: dict[str, Size] = field(default_factory=dict)
    whole: dict[str, Size] = field(default_factory=dict)
    workflows: list[str] = field(default_factory=list)
    rollbacks: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    decisions: int = 0

    def __bool__(self) -> bool:
        return bool(self.evidence or self.whole or self.workflows or self.rollbacks)

    @property
    def size(self) -> Size:
        return sum([*self.evidence.values(), *self.whole.values()], Size())

    def words(self) -> str:
        parts = {
            f"the evidence of {len(self.evidence)} runs": self.evidence,
            f"{len(self.whole)} runs that never came to a plan": self.whole,
            f"the recorded steps of {len(self.workflows)} runs": self.workflows,
            f"the records of {self.rollbacks} rollbacks": self.rollbacks,
        }
        return ", ".join(text for text, there in parts.items() if there)


@dataclass(frozen=True)
class _Run:
    """One folder of runs/, as far as it can be read. `began`: None where that is not known."""

    run_id: str
    fleet: str
    began: datetime | None = None
    planned: bool = True
    why_kept: str = ""


@dataclass(frozen=True)
class _Look:
    """Where to look, for what; and what the database knows."""

    project: Project
    store: Store
    limits: Limits
    recorded: dict[str, RecordedRun]
    workflows: frozenset[str]


def choose(project: Project, store: Store, limits: Limits, workflows: list[str]) -> list[Pruning]:
    """What would be deleted, fleet by fleet. Changes nothing. Raises BadInput, HostFailed.

    `workflows`: those whose steps are recorded.
    """
    look = _Look(project, store, limits, runs_on_record(store), frozenset(workflows))
    found = [_read(project, look.recorded, run_id) for run_id in run_ids(project) if re.fullmatch(RUN_ID, run_id)]
    fleets = sorted({run.fleet for run in found} | {run.fleet for run in look.recorded.values()})
    return [_of_fleet(look, fleet, [run for run in found if run.fleet == fleet]) for fleet in fleets]


def _read(project: Project, recorded: dict[str, RecordedRun], run_id: str) -> _Run:
    row = recorded.get(run_id)
    fleet = row.fleet if row else UNKNOWN
    try:
        plan, result = read_documents(project, run_id)
    except BadInput:
        return _Run(run_id, fleet, why_kept=f"it cannot be read: controller show {run_id}")
    document = result or plan
    fleet = document.fleet if row is None and document is not None else fleet
    if result is None or (row is not None and row.status == "running"):
        return _Run(run_id, fleet, why_kept="it is unfinished: controller runs")
    try:
        began = datetime.fromisoformat(result.started_at)
    except ValueError:
        return _Run(run_id, fleet, why_kept="when it began cannot be read")
    return _Run(run_id, fleet, began.replace(tzinfo=began.tzinfo or UTC), planned=plan is not None)


def _of_fleet(look: _Look, fleet: str, found: list[_Run]) -> Pruning:
    """`found`: its runs, newest first."""
    project, store, limits, recorded = look.project, look.store, look.limits, look.recorded
    before, year = _utc(limits.before), _utc(limits.now - YEAR)
    chosen = Pruning(fleet, decisions=len(trials_on_record(store, fleet=fleet, since=year)))
    chosen.rollbacks = count_ended_rollbacks(store, fleet, before)
    under_way = _holders(project, store, fleet)
    needed = dict.fromkeys(under_way, "it is under way") | _needed(project, store, fleet)
    newest = {run.run_id for run in found[: limits.newest]}
    for run in found:
        why = run.why_kept or needed.get(run.run_id, "")
        if not why and run.began is not None and run.began >= limits.before:
            why = f"younger than {limits.days} days"
        if not why and run.run_id in newest:
            why = f"one of the newest {limits.newest}"
        if why:
            chosen.kept[run.run_id] = why
        elif not run.planned:
            chosen.whole[run.run_id] = whole_size(project, run.run_id)
        elif (size := evidence_of(project, run.run_id)).files:
            chosen.evidence[run.run_id] = size
    # Of runs of other machines too: what has ended is never gone on with.
    ended = {run.run_id for run in recorded.values() if run.fleet == fleet and run.status != "running"}
    old = {run_id for run_id in ended - under_way if recorded[run_id].started_at < before}
    chosen.workflows = sorted(old & look.workflows)
    return chosen


def _holders(project: Project, store: Store, fleet: str) -> set[str]:
    """The runs that somebody is carrying out, here or on another machine."""
    here, row = FleetLock.holder(project, fleet), held_row(store, fleet)
    return {holder.run_id for holder in (here, row[0] if row else None) if holder is not None}


def _needed(project: Project, store: Store, fleet: str) -> dict[str, str]:
    """Run -> why its evidence is needed, however old it is."""
    in_force = "what it kept is in force"
    needed = dict.fromkeys(re.findall(RUN_ID, read_kept_text(project, fleet)), in_force)
    needed |= {baseline.run_id: in_force for baseline in store.baselines(fleet).values()}
    needed |= {host.run_id: "a host that it left out is in quarantine" for host in store.quarantined(fleet).values()}
    return needed | {commit.run_id: "its commit is not done" for commit in open_commits(store, fleet)}


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prune(
    project: Project,
    store: Store,
    chosen: list[Pruning],
    limits: Limits,
    *,
    accounts: Callable[[str], Accounts],
    forget_workflows: Callable[[list[str]], None],
    observe: Callable[[str], None],
) -> None:
    """Delete what was chosen, each fleet with an account of its own. It may be killed anywhere, and run again.

    One run that cannot be deleted keeps no other from it. Raises HostFailed when something is left.
    """
    failures: list[HostFailed] = []
    for fleet in filter(None, chosen):
        observe(f"fleet {fleet.fleet}: deleting {fleet.words()}")
        told = {"evidence_of": sorted(fleet.evidence), "deleted": sorted(fleet.whole), "days": limits.days}
        # Always: a disk that is so full that nothing can be told is what it is run for.
        account = accounts(fleet.fleet).account("prune", [], f"delete {fleet.words()}", told, always=True)
        with account as outcome:
            failed = _prune_fleet(project, store, fleet, limits, forget_workflows)
            outcome.what = f"deleted {fleet.words()}: {fleet.size.files} files, {fleet.size.bytes} bytes"
            outcome.evidence = told
            if failed:
                outcome.failed("; ".join(f"{error.where}: {error.what}" for error in failed))
            failures += failed
    if failures:
        first = failures[0]
        more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
        raise HostFailed(f"{first.what}{more}", where=first.where, next_step=first.next_step)


def _prune_fleet(
    project: Project,
    store: Store,
    fleet: Pruning,
    limits: Limits,
    forget_workflows: Callable[[list[str]], None],
) -> list[HostFailed]:
    """First what makes room on a full disk, then the database's records. Returns what failed."""
    failures: list[HostFailed] = []

    def attempt(function: Callable[[], None]) -> bool:
        try:
            function()
        except HostFailed as error:
            failures.append(error)
            return False
        return True

    for run_id in fleet.evidence:
        attempt(partial(delete_evidence, project, run_id, _utc(limits.now)))
    steps_gone = not fleet.workflows or attempt(partial(forget_workflows, fleet.workflows))
    if fleet.rollbacks:
        attempt(partial(forget_ended_rollbacks, store, fleet.fleet, _utc(limits.before)))
    # Steps, rows, folder: nobody could tell of a row without a folder whether it is another machine's run.
    if steps_gone and fleet.whole and attempt(partial(forget_runs, store, list(fleet.whole))):
        for run_id in fleet.whole:
            attempt(partial(delete_run, project, run_id))
    return failures
