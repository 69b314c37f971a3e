"""Edits by hand on the hosts: adopted where the operator says so, and never lost when they come in mid-run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.operators_fleet import LONG, LONG_VARIANT, FleetUnderTest, pairs_judged, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SHOP = "/etc/nginx/sites-enabled/shop"
SITE = "server { listen 8095; return 200 mine; }"
ADD_SITE = f"echo '{SITE}' | sudo tee {SHOP}"


@pytest.fixture
def edited(fleet: FleetUnderTest) -> Iterator[FleetUnderTest]:
    # Level 9 is what the inventory says: over in a moment, with no difference.
    fleet.write_experiment("same", {"level-9": {"nginx_gzip_comp_level": 9}})
    yield fleet
    for host in ("lab-1", "lab-2"):
        fleet.ssh(host, f"sudo rm -f {SHOP}; sudo ratchet-host rollback")
        confirmed = status(fleet, host)["confirmed"]
        fleet.ssh(host, f"sudo ratchet-host confirm {confirmed}")


def status(fleet: FleetUnderTest, host: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(fleet.ssh(host, "sudo ratchet-host status").stdout)
    return document


def kept_copies(fleet: FleetUnderTest, host: str) -> str:
    return fleet.ssh(host, "cat /etc/nginx/ratchet/original/edited-*.conf").stdout


def words(text: str) -> str:
    """Without the line breaks of the terminal."""
    return " ".join(text.split())


def test_adopt_makes_the_edits_the_baseline_and_says_what_it_cannot_keep(edited: FleetUnderTest) -> None:
    before = edited.live()
    edited.ssh("lab-1", ADD_SITE)
    edited.ssh("lab-2", "sudo sed -i 's/^http {/http { # mine/' /etc/nginx/nginx.conf")
    refused = edited.controller("optimize", "--fleet", "lab", "--experiment", "same")
    assert refused.returncode == 3
    assert "controller optimize --fleet lab --adopt" in refused.stderr
    assert edited.ssh("lab-1", f"cat {SHOP}").stdout.strip() == SITE
    assert "# mine" in edited.ssh("lab-2", "cat /etc/nginx/nginx.conf").stdout

    adopted = edited.controller("optimize", "--fleet", "lab", "--experiment", "same", "--adopt")
    assert adopted.returncode == 0, adopted.stderr
    assert f"lab-1: its edits by hand are the baseline now: {SHOP}: was added" in words(adopted.stderr)
    assert "is kept as /etc/nginx/ratchet/original/edited-" in words(adopted.stderr)
    assert "inventory/lab/group_vars/all/nginx.yml" in words(adopted.stderr)
    assert edited.live() == before
    assert edited.ssh("lab-1", f"cat {SHOP}").stdout.strip() == SITE
    assert "# mine" not in edited.ssh("lab-2", "cat /etc/nginx/nginx.conf").stdout
    assert "# mine" in kept_copies(edited, "lab-2")
    told = json.loads(edited.controller("audit", "--output", "json").stdout)
    states = [(entry["action"], entry["state"]) for entry in told["entries"]]
    assert {("provision", "ok"), ("optimize", "failed"), ("rollback", "ok"), ("optimize", "ok")} <= set(states)
    assert [state for state in states if state[0] == "adopt"] == [("adopt", "begun"), ("adopt", "ok")]
    (adopt,) = (entry for entry in told["entries"] if (entry["action"], entry["state"]) == ("adopt", "ok"))
    assert SHOP in adopt["evidence"]["lab-1"]["adopted"]
    assert told["not_ended"] == []
    assert edited.controller("audit", "verify").returncode == 0
    assert edited.controller("optimize", "--fleet", "lab", "--experiment", "same").returncode == 0


def test_edits_in_mid_run_survive_and_stop_the_run(edited: FleetUnderTest) -> None:
    edited.write_experiment("long", LONG_VARIANT, **LONG)
    before, known = edited.live(), edited.runs()
    run = edited.start("optimize", "--fleet", "lab", "--experiment", "long")
    wait_until(pairs_judged(edited, known), seconds=90, what="probing")
    edited.ssh("lab-1", ADD_SITE)
    edited.ssh("lab-2", "sudo sed -i 's/^http {/http { # in mid-run/' /etc/nginx/nginx.conf")
    _, err = run.communicate(timeout=180)
    err = words(err)
    assert run.returncode == 3, err
    assert f"lab-1: was edited by hand: {SHOP}: was added" in err
    assert "lab-2: was edited by hand" in err
    assert "# in mid-run" in err
    assert "controller optimize --fleet lab --adopt" in err
    assert edited.live() == before
    assert edited.ssh("lab-1", f"cat {SHOP}").stdout.strip() == SITE
    assert "# in mid-run" in kept_copies(edited, "lab-2")
    # It is told until somebody answers; a rollback does, and the copy stays.
    assert edited.controller("optimize", "--fleet", "lab", "--experiment", "same").returncode == 3
    answered = edited.controller("rollback", "--fleet", "lab")
    assert answered.returncode == 3
    assert "is kept as" in words(answered.stderr)
    assert f"lab-1: was edited by hand: {SHOP}" in answered.stderr
    assert status(edited, "lab-2")["drift"] is None
    assert "# in mid-run" in kept_copies(edited, "lab-2")
