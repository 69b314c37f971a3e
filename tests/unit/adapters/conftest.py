"""A project folder with one static fleet, whose key and known_hosts exist; databases of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.files.keys import ensure_fleet_key
from controller.adapters.store import Store, database_url
from controller.model.project import Project
from tests.unit.adapters.postgres import Cluster, newest_programs

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    folder = tmp_path / "inventory" / "web" / "group_vars" / "all"
    folder.mkdir(parents=True)
    (folder / "ratchet.yml").write_text("ratchet: {}\n")
    (folder.parents[1] / "hosts.yml").write_text("all: {hosts: {web-1: {ansible_host: 192.0.2.1}}}\n")
    (folder.parents[1] / "known_hosts").write_text("192.0.2.1 ssh-ed25519 AAAA\n")
    project = Project(tmp_path)
    ensure_fleet_key(project, "web")
    return project


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
