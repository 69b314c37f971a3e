"""Databases of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.adapters.store import Store, database_url
from controller.model.project import Project


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
