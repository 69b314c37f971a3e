"""A host breaks: with `broken_hosts: quarantine` the rest of the fleet goes on, and the host comes back by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.optimize.conftest import FleetUnderTest
from tests.integration.optimize.test_interruptions import LONG, pairs_judged, restart_ssh, wait_until

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
