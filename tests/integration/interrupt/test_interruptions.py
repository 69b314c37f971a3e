"""What an operator, a second controller or a kill does to a run: the baseline is back, and the run can go on."""

from __future__ import annotations

import signal

import pytest

from tests.integration.operators_fleet import (
    LONG,
    LONG_VARIANT,
    FleetUnderTest,
    newest_log,
    pairs_judged,
    restart_ssh,
    wait_until,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


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
