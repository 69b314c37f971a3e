"""A host breaks: with `broken_hosts: quarantine` the rest of the fleet goes on, and the host comes back by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.operators_fleet import LONG, FleetUnderTest, pairs_judged, restart_ssh, stint_begun, wait_until
from tests.integration.optimize.test_search import CALM, SHORT

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

# Ends sshd and every connection, so that it looks like a host that has lost its network.
CUT = "sudo systemctl stop ssh.socket ssh; sudo pkill -KILL -x sshd"


@pytest.fixture
def quarantining(fleet: FleetUnderTest, tmp_path: Path) -> Iterator[FleetUnderTest]:
    settings = fleet.project / "inventory/lab/group_vars/all/ratchet.yml"
    before = settings.read_text()
    document = yaml.safe_load(before)
    document["ratchet"]["trials"] |= {"broken_hosts": "quarantine", "alert": ["tee", "-a", str(tmp_path / "alerts")]}
    settings.write_text(yaml.safe_dump(document))
    fleet.write_experiment(
        "long", {"level-8": {"nginx_gzip_comp_level": 8}, "level-9": {"nginx_gzip_comp_level": 9}}, **LONG
    )
    fleet.write_experiment("same", {"level-9": {"nginx_gzip_comp_level": 9}})
    yield fleet
    settings.write_text(before)


def test_a_host_that_is_lost_in_mid_trial_is_left_out_and_comes_back(
    quarantining: FleetUnderTest, tmp_path: Path
) -> None:
    fleet, known = quarantining, quarantining.runs()
    run = fleet.start("optimize", "--fleet", "lab", "--experiment", "long", "--output", "json")
    wait_until(pairs_judged(fleet, known), seconds=90, what="probing")
    fleet.ssh("lab-2", CUT)
    out, err = run.communicate(timeout=240)
    # Its baseline cannot be shown while it is cut off: that is exit 5, whatever became of the others.
    assert run.returncode == 5, err
    result = json.loads(out)
    assert [trial["reason"] for trial in result["trials"]] == ["host-failed", "no-difference"]
    assert result["trials"][0]["failed_hosts"] == ["lab-2"]
    assert result["trials"][1]["hosts"] == ["lab-1"]
    assert set(result["quarantined"]) == {"lab-2"}
    (alert,) = (tmp_path / "alerts").read_text().splitlines()
    assert set(json.loads(alert)["quarantined"]) == {"lab-2"}
    rows = fleet.status()
    assert rows["lab-1"]["healthy"]
    assert rows["lab-2"]["quarantined"]["run_id"] == result["run_id"]

    # Still cut off at the next run's check: left out from the beginning.
    again = fleet.controller("optimize", "--fleet", "lab", "--experiment", "same", "--output", "json")
    assert again.returncode == 3, again.stderr
    assert json.loads(again.stdout)["status"] == "completed"
    assert "lab-2 is quarantined: unreachable" in " ".join(again.stderr.split())

    restart_ssh(fleet, "lab-2")
    back = fleet.controller("optimize", "--fleet", "lab", "--experiment", "same")
    assert back.returncode == 0, back.stderr
    assert "its quarantine is over" in " ".join(back.stderr.split())
    assert fleet.status()["lab-2"]["quarantined"] is None


def test_a_race_goes_on_without_a_host_that_is_lost(quarantining: FleetUnderTest) -> None:
    """The winner's first stint was measured on both hosts, the others on the one that is left."""
    fleet, known = quarantining, quarantining.runs()
    before = fleet.live()
    levels = {"level-3": {"nginx_gzip_comp_level": 3}, "level-8": {"nginx_gzip_comp_level": 8}}
    fleet.write_experiment("raced", levels, workload=CALM, timing=SHORT)
    run = fleet.start(
        "optimize", "--fleet", "lab", "--experiment", "raced", "--strategy", "race", "--seed", "2", "--output", "json"
    )
    wait_until(stint_begun(fleet, known, 2), seconds=90, what="at the second stint")
    fleet.ssh("lab-2", CUT)
    out, err = run.communicate(timeout=240)
    restart_ssh(fleet, "lab-2")
    assert run.returncode == 5, err
    result = json.loads(out)
    assert set(result["quarantined"]) == {"lab-2"}
    winner, other = result["trials"]
    assert (winner["verdict"], winner["hosts"], winner["live"]["passed"]) == ("KEEP", ["lab-1"], True), result
    assert [stint["hosts"] for stint in winner["stints"]] == [["lab-1", "lab-2"], ["lab-1"]]
    assert [stint["hosts"] for stint in other["stints"]] == [["lab-1"]]
    again = fleet.controller("verify", result["run_id"])
    assert again.returncode == 0, again.stdout + again.stderr

    undone = fleet.controller("rollback", "--fleet", "lab", "--before", result["run_id"])
    assert undone.returncode == 0, undone.stderr
    assert fleet.optimize("same")["status"] == "completed"
    assert fleet.status()["lab-2"]["quarantined"] is None
    assert fleet.live() == before
