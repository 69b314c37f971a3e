"""Commits on record: written before each phase, so that whoever comes next finishes them in the recorded direction."""

from __future__ import annotations

import sqlalchemy as sa

from controller.adapters.store.database import Store, commits
from controller.model.commit import Commit


def record_commit(store: Store, commit: Commit) -> None:
    """Insert or update it. Raises HostFailed."""
    values = {
        "fleet": commit.fleet,
        "state": commit.state,
        "started_at": commit.started_at,
        "document": commit.model_dump_json(),
    }
    store.upsert(commits, {"commit_id": commit.commit_id}, values)


def read_commit(store: Store, commit_id: str) -> Commit | None:
    """None when it was never recorded. Raises HostFailed."""
    query = sa.select(commits.c.document).where(commits.c.commit_id == commit_id)
    with store.transaction() as connection:
        document = connection.execute(query).scalar_one_or_none()
    return None if document is None else Commit.model_validate_json(document)


def open_commits(store: Store, fleet: str) -> list[Commit]:
    """The fleet's, broken off or not confirmed by every host yet; oldest first. Raises HostFailed."""
    query = sa.select(commits.c.document).where(commits.c.fleet == fleet, commits.c.state.not_in(["done", "returned"]))
    with store.transaction() as connection:
        documents = connection.execute(query.order_by(commits.c.started_at)).scalars().all()
    return [Commit.model_validate_json(document) for document in documents]


def commits_of(store: Store, run_id: str) -> list[Commit]:
    """Those that a run has begun, in order. Raises HostFailed."""
    query = sa.select(commits.c.document).where(commits.c.commit_id.startswith(f"{run_id}/", autoescape=True))
    with store.transaction() as connection:
        documents = connection.execute(query.order_by(commits.c.started_at)).scalars().all()
    return [Commit.model_validate_json(document) for document in documents]
