"""Real requests decide: a trial on live traffic, from nginx's own log to a verdict that can be recomputed."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.operators_fleet import FleetUnderTest
from tests.traffic import Traffic

pytestmark = [pytest.mark.lab, pytest.mark.measures, pytest.mark.timeout(600)]

CACHED, PLAIN = "/cached/list?size=2000&delay_ms=20", "/api/list?size=2000&delay_ms=20"
CLASSES = """
nginx_live_log_classes:
  - {name: cached, match: /cached/}
  - {name: api, match: "~^/api/[a-z]+"}
"""


@contextlib.contextmanager
def users_of(fleet: FleetUnderTest) -> Iterator[None]:
    """Requests to every host, two in three for what no cache holds."""
    with contextlib.ExitStack() as stack:
        for host in fleet.live():
            stack.enter_context(Traffic(fleet.address(host), 80, [CACHED, PLAIN, PLAIN], rate=40))
        yield


@pytest.fixture(scope="module")
def asked(fleet: FleetUnderTest) -> FleetUnderTest:
    """The fleet with classes of requests, and an experiment whose variant answers one of them from a cache."""
    parameters = fleet.project / "inventory/lab/group_vars/all/nginx.yml"
    parameters.write_text(parameters.read_text() + CLASSES)
    fleet.write_experiment(
        "live-cache",
        {"cache": {"nginx_proxy_cache": True, "nginx_proxy_cache_valid": "10s"}},
        source="live",
        minimum_requests=30,
        requires={"nginx_live_log": True},
        workload={"rate": 1, "requests": [{"path": CACHED}], "timeout_ms": 500},
        objective={"metric": "mean"},
        timing={"block_seconds": 2, "burn_in_seconds": 0.5},
    )
    return fleet


def test_without_users_nothing_is_decided_and_the_verdict_says_so(asked: FleetUnderTest) -> None:
    before = asked.live()
    (trial,) = asked.optimize("live-cache")["trials"]
    assert (trial["verdict"], trial["reason"]) == ("REVERT", "guardrail-missing-data"), trial
    assert "0 requests in 2 s of live traffic" in trial["note"]
    assert asked.live() == before


def test_what_users_gain_is_kept_and_the_verdict_can_be_recomputed(asked: FleetUnderTest) -> None:
    before = asked.live()
    with users_of(asked):
        run = asked.optimize("live-cache")
    (trial,) = run["trials"]
    assert (trial["verdict"], trial["reason"]) == ("KEEP", "proven-gain"), trial
    assert trial["design"] == "switchback"
    assert trial["errors"] == 0
    # A third of the requests takes next to no time now.
    assert trial["confirmed_effect"]["estimate"] > 0.3
    verified = asked.controller("verify", run["run_id"], "--output", "json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    folder = asked.project / "runs" / run["run_id"] / "trials/1"
    for host in before:
        rows = gzip.decompress((folder / f"{host}.csv.gz").read_bytes()).decode()
        sidecar: dict[str, Any] = json.loads((folder / f"{host}.json").read_text())
        assert {row.rpartition(",")[2] for row in rows.splitlines()[1:]} == {"cached", "api"}
        assert sidecar["source"] == "live"
        # The probe's account reads this log and no other; nobody's address is in it.
        logs = asked.ssh(
            host, "sudo -u ratchet-probe sh -c 'cat /var/log/ratchet/live.log; cat /var/log/nginx/access.log'"
        )
        assert "cached" in logs.stdout
        assert "/cached/" not in logs.stdout
        assert "Permission denied" in logs.stderr
    assert asked.controller("rollback", "--fleet", "lab", "--before", run["run_id"]).returncode == 0
    assert asked.live() == before
