"""Runs on record: what is planned, what came of it, and each of its trials as a row to be asked for."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import ValidationError

from controller.adapters.store.database import Store
from controller.adapters.store.tables import commits, runs, trials
from controller.adapters.store.trial_rows import Times, trial_rows
from controller.model.run import RunPlan, RunResult
from controller.model.trial import Effect

RUNNING = "running"


@dataclass(frozen=True)
class RecordedTrial:
    """One trial of a run that has ended. `effect` is the one of fresh pairs, where there is one.

    Times are UTC, ISO 8601; None in runs of before they were recorded, and where nothing was measured.
    """

    run_id: str
    number: int
    fleet: str
    experiment: str
    variant: str
    verdict: str
    reason: str
    objective: str
    effect: Effect | None
    pairs: int
    hosts: list[str]
    started_at: str | None
    ended_at: str | None


def record_plan(store: Store, plan: RunPlan) -> None:
    """Of a run that is on record already. Raises HostFailed."""
    with store.transaction() as connection:
        connection.execute(sa.update(runs).where(runs.c.run_id == plan.run_id).values(plan=plan.model_dump_json()))


def record_result(store: Store, result: RunResult, times: Times | None = None) -> None:
    """Record what a run came to, with a row for each trial. It may happen twice. Raises HostFailed."""
    rows = trial_rows(result.run_id, result.fleet, result.model_dump(mode="json"), times)
    values = {
        "fleet": result.fleet,
        "status": result.status,
        "started_at": result.started_at,
        "result": result.model_dump_json(),
    }
    with store.transaction() as connection:
        if not connection.execute(sa.update(runs).where(runs.c.run_id == result.run_id).values(**values)).rowcount:
            connection.execute(sa.insert(runs).values(run_id=result.run_id, **values))
        connection.execute(sa.delete(trials).where(trials.c.run_id == result.run_id))
        if rows:
            connection.execute(sa.insert(trials), rows)


def trials_on_record(store: Store, *, fleet: str | None = None, since: str = "") -> list[RecordedTrial]:
    """Of runs that began at `since` or later, newest run first. Raises HostFailed."""
    query = sa.select(trials).join(runs, runs.c.run_id == trials.c.run_id).where(runs.c.started_at >= since)
    if fleet is not None:
        query = query.where(trials.c.fleet == fleet)
    query = query.order_by(runs.c.started_at.desc(), trials.c.run_id.desc(), trials.c.number)
    with store.transaction() as connection:
        rows = connection.execute(query).mappings().all()
    found = []
    for row in rows:
        low, estimate, high = row["effect_low"], row["effect"], row["effect_high"]
        known = low is not None and estimate is not None and high is not None
        effect = Effect(estimate=estimate, low=low, high=high) if known else None
        told = {name: row[name] for name in row if name not in {"effect_low", "effect", "effect_high", "hosts"}}
        found.append(RecordedTrial(effect=effect, hosts=json.loads(row["hosts"]), **told))
    return found


def recent_results(store: Store, fleet: str, limit: int) -> list[RunResult]:
    """Of the fleet's newest ended runs, newest first, without what cannot be read any more. Raises HostFailed."""
    query = sa.select(runs.c.result).where(runs.c.fleet == fleet, runs.c.status != RUNNING)
    with store.transaction() as connection:
        documents = connection.execute(query.order_by(runs.c.started_at.desc()).limit(limit)).scalars().all()
    found = []
    for document in documents:
        with suppress(ValidationError):
            found.append(RunResult.model_validate_json(document))
    return found


@dataclass(frozen=True)
class RecordedRun:
    """A run's row without its documents."""

    run_id: str
    fleet: str
    status: str
    started_at: str


def runs_on_record(store: Store) -> dict[str, RecordedRun]:
    """Id -> run, of every fleet. Raises HostFailed."""
    query = sa.select(runs.c.run_id, runs.c.fleet, runs.c.status, runs.c.started_at)
    with store.transaction() as connection:
        return {row.run_id: RecordedRun(*row) for row in connection.execute(query)}


def forget_runs(store: Store, run_ids: list[str]) -> None:
    """Delete the rows of runs that have ended, with their trials and commits. Raises HostFailed."""
    for run_id in run_ids:
        with store.transaction() as connection:
            ended = sa.delete(runs).where(runs.c.run_id == run_id, runs.c.status != RUNNING)
            if connection.execute(ended).rowcount:
                connection.execute(sa.delete(trials).where(trials.c.run_id == run_id))
                connection.execute(sa.delete(commits).where(commits.c.commit_id.startswith(f"{run_id}/")))
