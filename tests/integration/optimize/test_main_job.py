"""The main job on real hosts: measured, kept when proven, reverted otherwise, and recomputable."""

from __future__ import annotations

import gzip
import json
import urllib.request
from typing import Any

import pytest

from tests.integration.operators_fleet import FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

HEADER = "pair,block,arm,seq,intended_us,lag_us,latency_us,kernel_us,status,bytes,conn,reused,error,first_byte_us"
FIELDS = {
    "experiment",
    "variant",
    "hosts",
    "verdict",
    "reason",
    "objective",
    "effect",
    "confirmed_effect",
    "evidence",
    "pairs",
    "requests",
    "errors",
    "seconds",
}


def test_provisioning_again_changes_nothing(fleet: FleetUnderTest) -> None:
    again = fleet.controller("provision", "--fleet", "lab", "--output", "json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["changed"] is False


def test_a_dry_run_shows_the_diff_and_touches_nothing(fleet: FleetUnderTest) -> None:
    fleet.write_experiment("level", {"level-4": {"nginx_gzip_comp_level": 4}})
    before, runs = fleet.status(), fleet.runs()
    done = fleet.controller("optimize", "--fleet", "lab", "--experiment", "level", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "-    gzip_comp_level 9;" in done.stdout
    assert "+    gzip_comp_level 4;" in done.stdout
    assert fleet.status() == before
    assert fleet.runs() == runs


@pytest.fixture(scope="module")
def kept(fleet: FleetUnderTest) -> dict[str, Any]:
    """A run whose only variant is a clear gain."""
    fleet.write_experiment("level", {"level-4": {"nginx_gzip_comp_level": 4}})
    found = fleet.live()
    for _ in range(3):
        run = fleet.optimize("level")
        # Beside other tests the probe may be too late for its own schedule: such evidence is refused, as it should be.
        if run["trials"][0]["reason"] != "guardrail-missing-data":
            break
    return {"found": found} | run


def test_a_clear_gain_is_kept_on_every_host_and_the_verdict_can_be_recomputed(
    fleet: FleetUnderTest, kept: dict[str, Any]
) -> None:
    run = kept
    (trial,) = run["trials"]
    assert trial.keys() >= FIELDS
    assert (trial["verdict"], trial["reason"]) == ("KEEP", "proven-gain"), trial
    assert trial["confirmed_effect"]["estimate"] > 0.1
    assert trial["errors"] == 0
    assert trial["live"]["passed"]
    assert trial["soak"]["passed"]
    assert len(trial["soak"]["sequence"]) == 2 * 6
    assert run["baseline_before"] == run["found"]
    assert run["baseline_after"] == fleet.live() != run["found"]
    for host in fleet.live():
        # The id is the hash of what is there: read over another connection.
        content = fleet.ssh(host, "cat /etc/nginx/nginx.conf")
        assert "gzip_comp_level 4;" in content.stdout
    verified = fleet.controller("verify", run["run_id"], "--output", "json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["same"] is True


def test_a_run_leaves_everything_that_explains_it(fleet: FleetUnderTest, kept: dict[str, Any]) -> None:
    folder = fleet.project / "runs" / kept["run_id"]
    assert {path.name for path in folder.iterdir()} >= {"plan.json", "verdict.json", "log.jsonl", "report.html"}
    for host in fleet.live():
        rows = gzip.decompress((folder / "trials/1" / f"{host}.csv.gz").read_bytes()).decode().splitlines()
        sidecar = json.loads((folder / "trials/1" / f"{host}.json").read_text())
        assert rows[0] == HEADER
        assert len(rows) - 1 == sidecar["csv"]["rows"]
    assert "proven-gain" in (folder / "log.jsonl").read_text()


def test_the_dashboard_of_each_host_tells_the_verdict(fleet: FleetUnderTest, kept: dict[str, Any]) -> None:
    assert kept["status"] == "completed"
    for host in fleet.live():
        with urllib.request.urlopen(f"http://{fleet.address(host)}:8088/", timeout=10) as answer:
            page = answer.read().decode()
            assert answer.headers["Cache-Control"] == "no-cache"
        assert "KEEP" in page
        with urllib.request.urlopen(f"http://{fleet.address(host)}:8088/state.json", timeout=10) as answer:
            assert json.loads(answer.read())["host"] == host


def test_a_harm_and_a_refused_variant_are_reverted(fleet: FleetUnderTest, kept: dict[str, Any]) -> None:
    assert kept["status"] == "completed"
    fleet.write_experiment(
        "worse",
        {
            "level-9": {"nginx_gzip_comp_level": 9},
            "refused": {"nginx_proxy_busy_buffers_size": "1m"},
        },
    )
    before = fleet.live()
    run = fleet.optimize("worse")
    harm, refused = run["trials"]
    assert (harm["verdict"], harm["reason"]) in {("REVERT", "slower"), ("REVERT", "guardrail-cpu")}
    assert (refused["verdict"], refused["reason"]) == ("REVERT", "rejected-by-nginx")
    assert "busy" in refused["note"]
    assert fleet.live() == before


def test_what_is_live_already_is_no_trial(fleet: FleetUnderTest, kept: dict[str, Any]) -> None:
    assert kept["status"] == "completed"
    fleet.write_experiment("same", {"level-4": {"nginx_gzip_comp_level": 4}})
    (trial,) = fleet.optimize("same")["trials"]
    assert (trial["verdict"], trial["reason"], trial["pairs"]) == ("REVERT", "no-difference", 0)


def test_an_edited_csv_does_not_verify(fleet: FleetUnderTest, kept: dict[str, Any]) -> None:
    host = next(iter(fleet.live()))
    path = fleet.project / "runs" / kept["run_id"] / "trials/1" / f"{host}.csv.gz"
    whole = path.read_bytes()
    rows = gzip.decompress(whole).decode().splitlines(keepends=True)
    fields = rows[20].split(",")
    fields[6] = "1"
    rows[20] = ",".join(fields)
    path.write_bytes(gzip.compress("".join(rows).encode()))
    try:
        verified = fleet.controller("verify", kept["run_id"], "--output", "json")
        assert verified.returncode == 3
        (trial,) = json.loads(verified.stdout)["trials"]
        assert trial["recomputed"] == "REVERT measurement-invalid"
    finally:
        path.write_bytes(whole)


def test_history_and_show_tell_of_past_runs(fleet: FleetUnderTest, kept: dict[str, Any]) -> None:
    history = fleet.controller("history", "--fleet", "lab", "--output", "json")
    assert kept["run_id"] in history.stdout
    shown = fleet.controller("show", kept["run_id"])
    assert shown.returncode == 0
    assert "KEEP" in shown.stdout


def test_a_rollback_to_before_a_run_undoes_what_it_kept(fleet: FleetUnderTest, kept: dict[str, Any]) -> None:
    done = fleet.controller("rollback", "--fleet", "lab", "--before", kept["run_id"])
    assert done.returncode == 0, done.stderr
    assert fleet.live() == kept["baseline_before"]
    audited = fleet.controller("audit", "verify")
    assert audited.returncode == 0, audited.stdout
