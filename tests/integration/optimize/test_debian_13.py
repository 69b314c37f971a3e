"""The main job on the newer distribution, Debian 13 with nginx 1.26, and in the database that a team shares."""

from __future__ import annotations

import pytest

from tests.integration.operators_fleet import FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.measures, pytest.mark.timeout(900)]


def test_a_gain_is_kept_and_rolled_back_on_debian_13_with_postgresql(newer: FleetUnderTest) -> None:
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
    assert not (newer.project / ".ratchet/ratchet.db").exists()
    assert newer.controller("audit", "verify").returncode == 0
