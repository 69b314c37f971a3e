"""Searches on real hosts: a race that survives a kill, and a search of ranges that is confirmed and pruned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.operators_fleet import FleetUnderTest, stint_begun, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SHORT = {"block_seconds": 0.5, "maximum_pairs": 16, "confirm_pairs": 3}
# Slow enough for the baseline's level 9 on a shared machine: the probe must keep its schedule in both arms.
CALM = {"rate": 12, "requests": [{"path": "/assets/app.js", "headers": {"Accept-Encoding": "gzip"}}]}
TUNED = {
    "nginx_gzip_comp_level": {"kind": "integer", "low": 1, "high": 3},
    "nginx_postpone_output": {"kind": "choice", "values": [1460, 1461]},
}


@pytest.fixture
def untuned(fleet: FleetUnderTest) -> FleetUnderTest:
    """The fleet as it was provisioned: whatever other tests kept is taken back."""
    kept = fleet.project / "inventory" / fleet.name / "group_vars/all/zz-kept.yml"
    for run in sorted((fleet.project / "runs").glob("r-*")):
        if kept.exists() and "nginx_" in kept.read_text() and (run / "kept.before.yml").exists():
            done = fleet.controller("rollback", "--fleet", fleet.name, "--before", run.name)
            assert done.returncode == 0, done.stderr
            break
    return fleet


def search(fleet: FleetUnderTest, *arguments: str) -> dict[str, Any]:
    done = fleet.controller("optimize", "--fleet", fleet.name, *arguments, "--output", "json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def verified(fleet: FleetUnderTest, run_id: str) -> list[dict[str, Any]]:
    done = fleet.controller("verify", run_id, "--output", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    trials: list[dict[str, Any]] = json.loads(done.stdout)["trials"]
    return trials


def test_a_race_goes_on_after_kill_9_and_keeps_one_winner_that_verifies(untuned: FleetUnderTest) -> None:
    untuned.write_experiment(
        "raced",
        {"level-8": {"nginx_gzip_comp_level": 8}, "level-3": {"nginx_gzip_comp_level": 3}},
        workload=CALM,
        timing=SHORT,
    )
    before, known = untuned.live(), untuned.runs()
    run = untuned.start("optimize", "--fleet", untuned.name, "--experiment", "raced", "--strategy", "race")
    wait_until(stint_begun(untuned, known, 2), seconds=90, what="at the second stint")
    (run_id,) = untuned.runs() - known
    log = untuned.project / "runs" / run_id / "log.jsonl"
    run.kill()
    run.communicate()
    resumed = untuned.controller("resume", log.parent.name, "--output", "json")
    assert resumed.returncode == 0, resumed.stderr
    document = json.loads(resumed.stdout)
    assert document["strategy"] == "race"
    # The first stint was recorded before the kill, and is not measured again.
    assert log.read_text().count("stint 1: raced") == 1
    trials = {trial["variant"]: trial for trial in document["trials"]}
    assert trials["level-3"]["verdict"] == "KEEP", trials
    assert trials["level-8"]["verdict"] == "REVERT"
    assert len(trials["level-3"]["stints"]) == 2
    assert trials["level-3"]["live"]["passed"]
    assert document["searches"][0]["winner"] == "level-3"
    assert untuned.live() == document["baseline_after"] != before
    assert all(row["same"] for row in verified(untuned, document["run_id"]))
    report = (log.parent / "report.html").read_text()
    assert "level-8" in report
    assert "level-3" in report


def test_ranges_are_searched_confirmed_pruned_and_verified(untuned: FleetUnderTest) -> None:
    # Blocks are calibrated, once for all trials; those that prune ask for other effects than the one it was done for.
    calibrated = {name: value for name, value in SHORT.items() if name != "block_seconds"}
    untuned.write_experiment("searched", {}, ranges=TUNED, workload=CALM, timing=calibrated)
    document = search(untuned, "--experiment", "searched", "--strategy", "bayes", "--budget-trials", "2", "--seed", "5")
    kept = [trial for trial in document["trials"] if trial["verdict"] == "KEEP"]
    assert len(kept) == 1, document["trials"]
    (summary,) = document["searches"]
    assert summary["tried"] == 2
    fate = {each["parameter"]: each["kept"] for each in summary["importance"]}
    assert fate.keys() == TUNED.keys()
    assert fate["nginx_gzip_comp_level"]
    assert untuned.live() == document["baseline_after"] != document["baseline_before"]
    assert all(row["same"] for row in verified(untuned, document["run_id"]))
