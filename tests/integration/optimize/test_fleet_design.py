"""Hosts against hosts on real hosts: the variant on one, control on the other, and another draw each period."""

from __future__ import annotations

import json

import pytest

from controller.judge.schedule import draw_groups
from tests.integration.operators_fleet import FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.measures, pytest.mark.timeout(600)]


def test_a_gain_is_kept_by_comparing_hosts_and_the_verdict_can_be_recomputed(fleet: FleetUnderTest) -> None:
    fleet.write_experiment(
        "hosts",
        {"level-4": {"nginx_gzip_comp_level": 4}},
        design="fleet",
        timing={"block_seconds": 1.0, "burn_in_seconds": 0.2},
    )
    before = fleet.live()
    run = fleet.optimize("hosts")
    (trial,) = run["trials"]
    assert (trial["verdict"], trial["reason"], trial["design"]) == ("KEEP", "proven-gain", "fleet"), trial
    assert trial["confirmed_effect"]["estimate"] > 0.1
    folder = fleet.project / "runs" / run["run_id"] / "trials/1"
    hosts = trial["hosts"]
    assert len(hosts) == 2
    groups = draw_groups(run["seed"], 1, hosts, 200)
    sidecars = {host: json.loads((folder / f"{host}.json").read_text()) for host in hosts}
    for host, sidecar in sidecars.items():
        arms = [block["arm"] for block in sidecar["blocks"]]
        assert set(arms[::2]) == {"control"}
        assert arms[1::2] == ["variant" if host in group else "control" for group in groups][: len(arms) // 2]
    # Both hosts began each period together.
    one, other = (sidecars[host]["blocks"] for host in hosts)
    apart = [abs(a["started_at"] - b["started_at"]) for a, b in zip(one[::2], other[::2], strict=False)]
    assert max(apart) < 1.0
    verified = fleet.controller("verify", run["run_id"], "--output", "json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert fleet.controller("rollback", "--fleet", "lab", "--before", run["run_id"]).returncode == 0
    assert fleet.live() == before
