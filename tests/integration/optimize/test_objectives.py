"""Objectives beyond one latency, on real hosts: saturation in turns, several goals, and a verdict that recomputes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.operators_fleet import WORKLOAD, FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.measures, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def saturated(fleet: FleetUnderTest) -> Iterator[dict[str, Any]]:
    """A run that asks how many requests a second both levels can answer, and what that takes in memory."""
    fleet.write_experiment(
        "capacity",
        {"level-1": {"nginx_gzip_comp_level": 1}},
        workload=WORKLOAD | {"mode": "saturation", "connections_open": 4, "timeout_ms": 10_000},
        objective={"combine": "pareto", "goals": [{"metric": "throughput"}, {"metric": "memory", "margin": 0.2}]},
    )
    run = fleet.optimize("capacity")
    yield run
    back = fleet.controller("rollback", "--fleet", "lab", "--before", run["run_id"])
    assert back.returncode == 0, back.stderr


def test_what_answers_more_requests_a_second_is_kept_and_every_goal_is_told(saturated: dict[str, Any]) -> None:
    (trial,) = saturated["trials"]
    assert (trial["verdict"], trial["reason"]) == ("KEEP", "proven-gain"), trial
    assert (trial["design"], trial["objective"]) == ("duet", "throughput")
    assert trial["confirmed_effect"]["estimate"] > 0.2
    assert [(goal["metric"], goal["standing"]) for goal in trial["goals"]] == [
        ("throughput", "better"),
        ("memory", "not-worse"),
    ]
    # The live instance was asked at the workload's rate, for its latency.
    assert (trial["live"]["passed"], trial["live"]["objective"]) == (True, "p50")
    assert saturated["pareto"] == [{"experiment": "capacity", "members": ["level-1"], "dominated": ["baseline"]}]


def test_the_verdict_recomputes_from_the_rows_of_the_turns(fleet: FleetUnderTest, saturated: dict[str, Any]) -> None:
    verified = fleet.controller("verify", saturated["run_id"], "--output", "json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["same"] is True
    shown = fleet.controller("show", saturated["run_id"])
    assert "nothing is better in every way than level-1; baseline can be left out" in " ".join(shown.stdout.split())
    assert ": proven better" in (fleet.project / "runs" / saturated["run_id"] / "report.html").read_text()


def test_memory_of_alike_configurations_is_no_gain(fleet: FleetUnderTest) -> None:
    """A header buffer that no request fills: nginx takes the same memory for it, to some dozen pages by chance."""
    fleet.write_experiment(
        "buffers",
        {"two-k": {"nginx_client_header_buffer_size": "2k"}},
        objective={"metric": "memory", "minimum_effect": 0.01},
    )
    (trial,) = fleet.optimize("buffers")["trials"]
    assert (trial["verdict"], trial["objective"]) == ("REVERT", "memory"), trial
    assert abs(trial["effect"]["estimate"]) < 0.05
