"""Somebody edits the fleet's settings while a trial is measured, and deploys nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operators_fleet import FleetUnderTest, pairs_judged, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


@pytest.fixture
def settings(fleet: FleetUnderTest) -> Iterator[Path]:
    path = fleet.project / "inventory" / fleet.name / "group_vars/all/nginx.yml"
    before = path.read_text()
    yield path
    path.write_text(before)
    undone = fleet.controller("rollback", "--fleet", fleet.name, "--before", "last")
    assert undone.returncode == 0, undone.stderr


def test_what_was_measured_is_committed_and_the_edit_is_told_and_deployed_by_nobody(
    fleet: FleetUnderTest, settings: Path
) -> None:
    fleet.write_experiment("edited-meanwhile", {"level-1": {"nginx_gzip_comp_level": 1}})
    known = fleet.runs()
    run = fleet.start("optimize", "--fleet", fleet.name, "--experiment", "edited-meanwhile")
    wait_until(pairs_judged(fleet, known), seconds=90, what="probing")
    settings.write_text(settings.read_text() + 'nginx_keepalive_timeout: "1s"\n')
    _, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    (run_id,) = fleet.runs() - known
    measured = fleet.plan(run_id)["variant_ids"]
    assert fleet.live() == measured
    # Lines are as wide as the terminal.
    told = " ".join(err.split())
    assert "as it was measured, but the inventory renders to" in told and "keepalive_timeout 1s;" in told
    status = fleet.controller("status", "--fleet", fleet.name)
    assert "which is not deployed" in " ".join(status.stdout.split())
