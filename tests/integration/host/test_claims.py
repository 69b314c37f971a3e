"""A controller's claim on a host: told by status, extended by a session that lives, gone with a power cut."""

from __future__ import annotations

import time

import pytest

from tests.integration.host.conftest import Host

pytestmark = pytest.mark.lab


def claim(host: Host, run: str, holder: str = "ann@laptop/1", seconds: int = 300) -> dict[str, object]:
    return host.ratchet("claim", "--holder", holder, "--run", run, "--seconds", str(seconds))


def test_a_claim_is_told_keeps_others_away_and_is_released_by_its_run(host: Host) -> None:
    assert host.status()["claim"] is None
    assert claim(host, "r-1")["ok"]
    refused = claim(host, "r-2", "bob@desk/2")
    assert refused["error"] == f"claimed by run r-1 of ann@laptop/1 since {host.status()['claim']['since']}"
    # People are not kept from anything.
    assert host.ratchet("rollback")["ok"]
    assert host.ratchet("release", "--run", "r-1")["changed"]
    assert claim(host, "r-2", "bob@desk/2")["ok"]
    host.ratchet("release", "--run", "r-2")


def test_a_claim_runs_out_and_a_living_session_extends_it(host: Host) -> None:
    claim(host, "r-1", seconds=5)
    session = host.session(lease=20)
    for _ in range(4):
        time.sleep(2)
        assert session.ask("renew")["ok"]
        assert host.status()["claim"]["run"] == "r-1"
    assert session.ask("end")["verified"]
    host.until(lambda: host.status()["claim"] is None, 8)


def test_a_claim_does_not_survive_a_power_cut(host: Host) -> None:
    claim(host, "r-1")
    host.cut_power()
    host.boot()
    assert host.status()["claim"] is None
