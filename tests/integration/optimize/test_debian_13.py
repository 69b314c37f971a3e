"""The main job on the newer distribution: Debian 13 with nginx 1.26."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.optimize.conftest import FleetUnderTest, new_project

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture
def newer(lab_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetUnderTest]:
    fleet = new_project(
        tmp_path_factory.mktemp("newer"),
        lab_session.endpoint,
        lab_session.token,
        hosts=1,
        image="debian-13",
        name="d13",
    )
    provisioned = fleet.controller("provision", "--fleet", fleet.name, timeout=600)
    assert provisioned.returncode == 0, provisioned.stdout + provisioned.stderr
    yield fleet
    fleet.controller("destroy", "--fleet", fleet.name, "--yes")
    shutil.rmtree(fleet.project)


def test_a_gain_is_kept_and_rolled_back_on_debian_13(newer: FleetUnderTest) -> None:
    (row,) = newer.status().values()
    assert row["nginx"].startswith("1.26.")
    newer.write_experiment("level", {"level-4": {"nginx_gzip_comp_level": 4}})
    run = newer.optimize("level")
    (trial,) = run["trials"]
    assert (trial["verdict"], trial["reason"]) == ("KEEP", "proven-gain"), trial
    assert newer.live() == run["baseline_after"] != run["baseline_before"]
    assert newer.controller("verify", run["run_id"]).returncode == 0
    back = newer.controller("rollback", "--fleet", newer.name, "--before", run["run_id"])
    assert back.returncode == 0, back.stderr
    assert newer.live() == run["baseline_before"]
