"""A second fleet beside the one of two hosts: Debian 13, and a project that keeps its runs in PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.lab_fleet import write_project
from tests.integration.operators_fleet import FleetUnderTest
from tests.postgres import Cluster


@pytest.fixture(scope="session")
def newer(lab_session: Any, postgresql: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetUnderTest]:
    """A fleet `d13` of one host with Debian 13, whose project keeps its runs in PostgreSQL."""
    folder = tmp_path_factory.mktemp("newer")
    write_project(folder, "d13", hosts=1, image="debian-13", trials={"lease_seconds": 20, "soak_seconds": 6})
    newer = FleetUnderTest(
        folder, os.environ | lab_session.environment() | {"RATCHET_DATABASE_URL": postgresql.url()}, "d13"
    )
    provisioned = newer.controller("provision", "--fleet", newer.name, timeout=600)
    assert provisioned.returncode == 0, provisioned.stdout + provisioned.stderr
    yield newer
    newer.controller("destroy", "--fleet", newer.name, "--yes")
