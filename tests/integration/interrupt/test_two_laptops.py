"""Two operators with a project folder each, the same fleet, and nothing else in common."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.operators_fleet import LONG, LONG_VARIANT, FleetUnderTest, newest_log, pairs_judged, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture
def laptops(fleet: FleetUnderTest, tmp_path: Path) -> Iterator[tuple[FleetUnderTest, FleetUnderTest]]:
    fleet.write_experiment("long", LONG_VARIANT, **LONG)
    other = tmp_path / "other"
    shutil.copytree(fleet.project, other, symlinks=True, ignore=shutil.ignore_patterns("runs", "ratchet.db*", "locks"))
    for log in (other / ".ratchet").glob("audit*"):
        log.unlink()
    yield fleet, FleetUnderTest(other, fleet.environment)
    fleet.controller("rollback", "--fleet", "lab", "--take-over")


def claims(fleet: FleetUnderTest) -> dict[str, dict[str, Any] | None]:
    """Host -> its claim, asked on the host itself."""
    return {
        host: json.loads(fleet.ssh(host, "sudo ratchet-host status").stdout)["claim"] for host in ("lab-1", "lab-2")
    }


def test_the_second_laptop_is_told_who_has_the_hosts_and_may_take_them_over(
    laptops: tuple[FleetUnderTest, FleetUnderTest],
) -> None:
    first, second = laptops
    before, known = first.live(), first.runs()
    run = first.start("optimize", "--fleet", "lab", "--experiment", "long")
    wait_until(pairs_judged(first, known), seconds=90, what="probing")
    for command in (["optimize", "--fleet", "lab"], ["rollback", "--fleet", "lab"], ["provision", "--fleet", "lab"]):
        refused = second.controller(*command)
        assert refused.returncode == 4, refused.stderr
        assert "claimed by run r-" in refused.stderr
        assert "runs out in" in refused.stderr
        assert "rollback --fleet lab --take-over" in refused.stderr
    assert not second.runs()
    held = claims(second)
    assert all(claim and claim["run"].startswith("r-") and claim["seconds_left"] > 200 for claim in held.values())
    assert run.poll() is None

    taken = second.controller("rollback", "--fleet", "lab", "--take-over")
    assert taken.returncode == 0, taken.stderr
    _, err = run.communicate(timeout=120)
    assert run.returncode == 4, err
    assert "was taken over" in err and "nothing was restored there" in err
    assert first.live() == before
    assert set(claims(second).values()) == {None}


def processes_of(pid: int) -> list[int]:
    """A process and all that it has started, children first."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [found for child in children for found in processes_of(int(child))] + [pid]


def commits(fleet: FleetUnderTest, known: set[str]) -> bool:
    """Whether a new run has said that its commit begins."""
    logs = [fleet.project / "runs" / run / "log.jsonl" for run in fleet.runs() - known]
    return any("committing on every host" in log.read_text() for log in logs if log.exists())


def test_a_run_that_was_suspended_at_its_commit_and_taken_over_changes_nothing_when_it_wakes(
    laptops: tuple[FleetUnderTest, FleetUnderTest],
) -> None:
    first, second = laptops
    first.write_experiment("quick", LONG_VARIANT, **(LONG | {"timing": {"block_seconds": 0.5, "maximum_pairs": 40}}))
    before, known = first.live(), first.runs()
    run = first.start("optimize", "--fleet", "lab", "--experiment", "quick")
    deadline = time.monotonic() + 200
    while run.poll() is None and not commits(first, known) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.poll() is None, run.communicate()[1]
    suspended = processes_of(run.pid)
    for pid in suspended:
        os.kill(pid, signal.SIGSTOP)
    try:
        taken = second.controller("rollback", "--fleet", "lab", "--take-over")
        assert taken.returncode == 0, taken.stderr
        assert second.live() == before
    finally:
        for pid in reversed(suspended):
            os.kill(pid, signal.SIGCONT)
    _, err = run.communicate(timeout=200)
    assert run.returncode == 4, err
    (run_id,) = first.runs() - known
    assert f"run {run_id} was taken over" in err
    assert json.loads((first.project / "runs" / run_id / "verdict.json").read_text())["status"] == "taken-over"
    rows = second.status()
    assert {host: (row["live"], row["confirmed"]) for host, row in rows.items()} == {
        host: (baseline, baseline) for host, baseline in before.items()
    }
    assert set(claims(second).values()) == {None}


def test_claims_are_renewed_by_heartbeats_and_end_with_the_run(laptops: tuple[FleetUnderTest, FleetUnderTest]) -> None:
    first, _ = laptops
    known = first.runs()
    run = first.start("optimize", "--fleet", "lab", "--experiment", "long")
    wait_until(pairs_judged(first, known), seconds=90, what="probing")
    (run_id,) = first.runs() - known
    for host, claim in claims(first).items():
        assert claim is not None
        assert claim["run"] == run_id
        # The run's own claim, cut down: it would be gone before this test ends, were the session not to extend it.
        kept = json.loads(first.ssh(host, "sudo cat /run/ratchet/claim.json").stdout)
        named = ["--holder", claim["holder"], "--run", run_id, "--generation", str(kept["generation"])]
        words = shlex.join(["claim", *named, "--seconds", "15"])
        assert first.ssh(host, f"sudo ratchet-host {words}").returncode == 0
    time.sleep(20)
    held = claims(first)
    assert run.poll() is None
    assert all(claim and claim["run"] == run_id and claim["seconds_left"] > 0 for claim in held.values()), held
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=90)
    assert set(claims(first).values()) == {None}


def test_all_or_nothing_and_a_dead_run_s_claim_is_taken_over_by_its_own_machine(
    laptops: tuple[FleetUnderTest, FleetUnderTest],
) -> None:
    first, second = laptops
    first.ssh("lab-2", "sudo ratchet-host claim --holder ann@elsewhere --run r-1 --seconds 60")
    refused = first.controller("optimize", "--fleet", "lab", "--experiment", "long")
    assert refused.returncode == 4
    assert "lab-2: claimed by run r-1 of ann@elsewhere since" in refused.stderr
    assert claims(first)["lab-1"] is None
    first.ssh("lab-2", "sudo ratchet-host release --run r-1")

    known = first.runs()
    run = first.start("optimize", "--fleet", "lab", "--experiment", "long")
    wait_until(pairs_judged(first, known), seconds=90, what="probing")
    run.kill()
    run.communicate()
    assert second.controller("rollback", "--fleet", "lab").returncode == 4
    assert first.controller("rollback", "--fleet", "lab").returncode == 0
    assert set(claims(first).values()) == {None}
    events = len(newest_log(first))
    resumed = first.start("resume")
    wait_until(lambda: all(claims(first).values()), seconds=60, what="claimed again")
    wait_until(lambda: any(e["event"] == "pair" for e in newest_log(first)[events:]), seconds=90, what="probing")
    resumed.send_signal(signal.SIGTERM)
    resumed.communicate(timeout=120)
    assert set(claims(first).values()) == {None}
