"""Databases of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.store import Store, database_url
from controller.model.project import Project
from tests.unit.postgres import Cluster, newest_programs


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    programs = newest_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (scripts/system-packages --tests)")
    cluster = Cluster(programs)
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty database of each kind, as the store gets it."""
    if request.param == "postgresql":
        monkeypatch.setenv("RATCHET_DATABASE_URL", request.getfixturevalue("postgresql").url())
    else:
        monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    return database_url(Project(tmp_path))


@pytest.fixture
def store(database: str) -> Store:
    return Store(database)
