"""Commits on record: written before each phase, so that whoever comes next finishes them in the recorded direction."""

from __future__ import annotations

import sqlalchemy as sa

from controller.adapters.store.database import Store
from controller.adapters.store.tables import commits
from controller.model.commit import ENDED, Commit
from controller.model.errors import FleetLocked


def record_commit(store: Store, commit: Commit, generation: int = 0) -> None:
    """Insert or update it, unless a later holder of the fleet has written it since: whoever woke up late has no word.

    Raises HostFailed; FleetLocked when it came too late.
    """
    values = {
        "fleet": commit.fleet,
        "state": commit.state,
        "started_at": commit.started_at,
        "generation": generation,
        "document": commit.model_dump_json(),
    }
    same = commits.c.commit_id == commit.commit_id
    ours = sa.and_(same, commits.c.generation <= generation)
    with store.transaction() as connection:
        if connection.execute(sa.update(commits).where(ours).values(**values)).rowcount:
            return
        if connection.execute(sa.select(commits.c.commit_id).where(same)).first() is None:
            connection.execute(sa.insert(commits).values(commit_id=commit.commit_id, **values))
            return
    raise FleetLocked(
        f"{commit.why} was gone on with by another command meanwhile; nothing was recorded",
        where=commit.fleet,
        next_step=f"see what is going on: controller status --fleet {commit.fleet}",
    )


def read_commit(store: Store, commit_id: str) -> Commit | None:
    """None when it was never recorded. Raises HostFailed."""
    query = sa.select(commits.c.document).where(commits.c.commit_id == commit_id)
    with store.transaction() as connection:
        document = connection.execute(query).scalar_one_or_none()
    return None if document is None else Commit.model_validate_json(document)


def open_commits(store: Store, fleet: str) -> list[Commit]:
    """The fleet's, broken off or not confirmed by every host yet; oldest first by their fences. Raises HostFailed."""
    query = sa.select(commits.c.document).where(commits.c.fleet == fleet, commits.c.state.not_in(sorted(ENDED)))
    with store.transaction() as connection:
        documents = connection.execute(query.order_by(commits.c.generation, commits.c.started_at)).scalars().all()
    return [Commit.model_validate_json(document) for document in documents]


def commits_of(store: Store, run_id: str) -> list[Commit]:
    """Those that a run has begun, in order. Raises HostFailed."""
    query = sa.select(commits.c.document).where(commits.c.commit_id.startswith(f"{run_id}/", autoescape=True))
    with store.transaction() as connection:
        documents = connection.execute(query.order_by(commits.c.started_at)).scalars().all()
    return [Commit.model_validate_json(document) for document in documents]


def forget_open_commits(store: Store, fleet: str) -> None:
    """End those of a fleet that is gone: a later one of its name has other hosts. Raises HostFailed."""
    for commit in open_commits(store, fleet):
        ended = commit.model_copy(update={"state": "superseded"})
        values = {"state": ended.state, "document": ended.model_dump_json()}
        with store.transaction() as connection:
            connection.execute(sa.update(commits).where(commits.c.commit_id == commit.commit_id).values(**values))


def _ended_rollbacks(fleet: str, before: str) -> sa.ColumnElement[bool]:
    """Those of the fleet that began before that time: nothing reads them any more. A run's own are RUN/TRIAL."""
    ended = commits.c.state.in_(sorted(ENDED))
    return sa.and_(commits.c.fleet == fleet, ended, commits.c.started_at < before, commits.c.commit_id.not_like("%/%"))


def count_ended_rollbacks(store: Store, fleet: str, before: str) -> int:
    """How many rollbacks of the fleet are on record that began before that time and are done. Raises HostFailed."""
    query = sa.select(sa.func.count()).select_from(commits).where(_ended_rollbacks(fleet, before))
    with store.transaction() as connection:
        return int(connection.execute(query).scalar_one())


def forget_ended_rollbacks(store: Store, fleet: str, before: str) -> None:
    """Raises HostFailed."""
    with store.transaction() as connection:
        connection.execute(sa.delete(commits).where(_ended_rollbacks(fleet, before)))
