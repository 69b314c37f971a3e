"""What an operator, a second controller or a kill does to a run: the baseline is back, and the run can go on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.optimize.conftest import FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

# Long enough to be caught in the middle, on the live instance, so that there is something to restore; and nothing but
# the test ends it, whatever the fleet has kept meanwhile: the variant is far faster, so that no rule gives it up, and
# may not be kept before 150 pairs.
LONG_VARIANT = {"plain": {"nginx_gzip": False}}
LONG = {
    "design": "switchback",
    "allow_service_reduction": True,
    "timing": {"block_seconds": 1.0, "maximum_pairs": 200, "minimum_pairs": 150},
}


def wait_until(true: Callable[[], bool], *, seconds: float, what: str) -> float:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, f"after {seconds} s still not {what}"
        time.sleep(0.3)
    return time.monotonic() - started


def newest_log(fleet: FleetUnderTest) -> list[dict[str, Any]]:
    logs = sorted((fleet.project / "runs").glob("*/log.jsonl"))
    return [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []


def pairs_judged(fleet: FleetUnderTest, known: set[str]) -> Callable[[], bool]:
    def judged() -> bool:
        runs = fleet.runs() - known
        return bool(runs) and any(event.get("event") == "pair" for event in newest_log(fleet))

    return judged


def stint_begun(fleet: FleetUnderTest, known: set[str], number: int) -> Callable[[], bool]:
    def begun() -> bool:
        return bool(fleet.runs() - known) and any(
            event.get("text", "").startswith(f"stint {number}:") for event in newest_log(fleet)
        )

    return begun


@pytest.fixture
def long_run(fleet: FleetUnderTest) -> FleetUnderTest:
    fleet.write_experiment("long", LONG_VARIANT, **LONG)
    return fleet


def test_ctrl_c_finishes_the_block_and_puts_the_baseline_back(long_run: FleetUnderTest) -> None:
    before, known = long_run.live(), long_run.runs()
    run = long_run.start("optimize", "--fleet", "lab", "--experiment", "long")
    wait_until(pairs_judged(long_run, known), seconds=90, what="probing")
    second = long_run.controller("optimize", "--fleet", "lab", "--experiment", "long")
    assert second.returncode == 4
    assert "is held by run r-" in second.stderr
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=90)
    assert run.returncode == 130, err
    assert "finishing this block" in err
    assert long_run.live() == before


def test_after_kill_9_the_lease_restores_the_hosts_and_resume_ends_the_run(long_run: FleetUnderTest) -> None:
    before, known = long_run.live(), long_run.runs()
    run = long_run.start("optimize", "--fleet", "lab", "--experiment", "long")
    wait_until(pairs_judged(long_run, known), seconds=90, what="probing")
    run.kill()
    run.communicate()
    # Healthy: on the baseline, with no session and no lease left.
    wait_until(lambda: all(row["healthy"] for row in long_run.status().values()), seconds=30, what="restored")
    assert long_run.live() == before
    events = len(newest_log(long_run))
    listed = long_run.controller("runs")
    assert "was broken off" in listed.stdout
    # A trial that would never end is cut short for the resumed run: the question here is only that it ends well.
    resumed = long_run.start("resume")
    wait_until(
        lambda: any(event["event"] == "pair" for event in newest_log(long_run)[events:]), seconds=90, what="probing"
    )
    resumed.send_signal(signal.SIGTERM)
    _, err = resumed.communicate(timeout=90)
    assert resumed.returncode == 130, err
    assert long_run.live() == before
    assert "nothing is unfinished" in long_run.controller("runs").stdout


def test_a_hand_edit_stops_the_run_and_is_not_touched(fleet: FleetUnderTest) -> None:
    host = sorted(fleet.live())[0]
    edit = 'sudo sh -c \'echo "# by hand" >> "$(readlink -f /etc/nginx/nginx.conf)"\''
    assert fleet.ssh(host, edit).returncode == 0
    try:
        fleet.write_experiment("level", {"level-4": {"nginx_gzip_comp_level": 4}})
        done = fleet.controller("optimize", "--fleet", "lab", "--experiment", "level")
        assert done.returncode == 3
        assert f"{host}: was edited by hand" in done.stderr
        assert "# by hand" in done.stderr
        assert "# by hand" in fleet.ssh(host, "cat /etc/nginx/nginx.conf").stdout
    finally:
        fleet.ssh(host, "sudo sed -i '/# by hand/d' \"$(readlink -f /etc/nginx/nginx.conf)\"")


def test_an_unreachable_host_is_named_and_nothing_is_changed(fleet: FleetUnderTest) -> None:
    host, other = sorted(fleet.live())
    fleet.ssh(host, "sudo systemctl stop ssh.socket ssh")
    before = fleet.ssh(other, "readlink /etc/nginx/ratchet/live").stdout
    try:
        done = fleet.controller("optimize", "--fleet", "lab", "--experiment", "level")
        assert done.returncode == 3
        assert host in done.stderr
        assert fleet.ssh(other, "readlink /etc/nginx/ratchet/live").stdout == before
    finally:
        restart_ssh(fleet, host)


def restart_ssh(fleet: FleetUnderTest, host: str) -> None:
    """By the cloud's own means: a reset of the server."""
    from hcloud import Client

    client = Client(token=fleet.environment["HCLOUD_TOKEN"], api_endpoint=fleet.environment["HCLOUD_ENDPOINT"])
    server = client.servers.get_by_name(host)
    assert server is not None
    client.servers.reset(server).wait_until_finished()
    wait_until(lambda: fleet.ssh(host, "true").returncode == 0, seconds=60, what="back")
    wait_until(lambda: fleet.status()[host]["healthy"], seconds=30, what="healthy")
