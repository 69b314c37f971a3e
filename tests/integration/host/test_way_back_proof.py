"""What nginx runs is what its workers carry, whoever has started, upgraded, crashed or stopped them."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from controller.lab.commands import podman
from controller.model.blocks import LIMITS
from tests.integration.host.conftest import (
    BASELINE,
    BASELINE_ID,
    FILES,
    LEASE,
    VARIANT_ID,
    Host,
    configuration,
    held_port,
    identity,
)
from tests.integration.host.way_back import (
    GRACE,
    assert_back,
    assert_rests,
    by_mark,
    live_by_hand,
    mark,
    restart_nginx,
)
from tests.packages import INSTALL_NGINX, REPACK_NGINX

pytestmark = pytest.mark.lab

AGENT = FILES.parents[1] / "probe/files/ratchet-agent"
PROBE = "/run/probe"
ONE_WORKER = BASELINE.replace("worker_processes 2;", "worker_processes 1;")
# Old workers may stay with their clients for longer than any lease here.
PATIENT = configuration(4).replace("worker_shutdown_timeout 3s;", "worker_shutdown_timeout 90s;")


@pytest.fixture
def restarted(host: Host) -> Iterator[Host]:
    """A host whose nginx is systemd's own again afterwards."""
    yield host
    restart_nginx(host)


def test_every_worker_carries_the_mark_of_what_is_live_and_each_stage_has_another(host: Host) -> None:
    files = [f"/etc/nginx/ratchet/{each}/nginx.conf" for each in (BASELINE_ID, VARIANT_ID)]
    assert 2 <= int(mark(host, files[0])) <= 2047 and mark(host, files[0]) != mark(host, files[1])
    assert by_mark(host) == {mark(host, files[0])}
    live_by_hand(host)
    assert by_mark(host) == {mark(host, files[1])} and host.status()["verified"]
    assert host.ratchet("rollback")["ok"]
    # The id is of the text; a text that is staged anew is another stage.
    before = mark(host, files[1])
    host.run(f"rm -r /etc/nginx/ratchet/{VARIANT_ID}")
    host.stage(variant=configuration(4))
    assert mark(host, files[1]) != before


def test_a_worker_that_crashes_while_a_reload_fails_is_no_new_generation(host: Host) -> None:
    variant = ONE_WORKER.replace("level 9", "level 4").replace(
        "server { listen 8090;", "server { listen 8091; listen 8090;"
    )
    host.stage(one=ONE_WORKER, variant=variant)
    assert host.ratchet("confirm", identity(ONE_WORKER))["ok"]
    with held_port(host, 8091):
        host.run("(sleep 1.2; pkill -KILL -P $(cat /run/nginx.pid)) >/dev/null 2>&1 &")
        answer = host.ratchet("switch", identity(variant), "--lease", "5")
    assert host.level() == "level 9\n"
    assert not answer["ok"] and "Address already in use" in answer["error"], answer
    status = host.status()
    assert status["live"] == status["confirmed"] == identity(ONE_WORKER) and status["verified"]


def test_a_rollback_between_usr2_and_quit_is_not_said_to_be_verified_when_it_is_not(restarted: Host) -> None:
    host = restarted
    began = live_by_hand(host, lease=LEASE)
    old = host.run("cat /run/nginx.pid").strip()
    host.run(f"kill -USR2 {old}; sleep 0.5")
    answer = host.ratchet("rollback")
    if answer["ok"]:
        assert answer["verified"] and by_mark(host) == {mark(host)}
    host.run(f"kill -QUIT {old}", check=False)
    host.until(lambda: not host.run(f"ls -d /proc/{old}", check=False), 8)
    assert_back(host, began)


def test_an_upgrade_of_nginx_with_a_long_request_does_not_keep_the_variant(restarted: Host) -> None:
    host = restarted
    host.stage(patient=PATIENT)
    began = live_by_hand(host, identity(PATIENT))
    with socket.create_connection((host.address, 8090), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.2)
        host.run("/etc/init.d/nginx upgrade")
        host.until(lambda: host.level() == "level 9\n", LEASE + GRACE - (time.monotonic() - began))
        host.until(lambda: by_mark(host) == {mark(host)}, 3)
        assert host.ratchet("rollback")["verified"]
        # The client of the old master is still answered.
        client.sendall(b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert_rests(host)


def test_an_nginx_that_somebody_started_by_hand_goes_back_like_any_other(restarted: Host) -> None:
    host = restarted
    began = live_by_hand(host)
    host.run("nginx -s stop; sleep 0.5; nginx")
    assert_back(host, began)
    assert host.ratchet("rollback")["verified"]
    assert len(host.run("pgrep -f 'nginx: master'").split()) == 1


def test_a_package_s_upgrade_in_a_lease_changes_nothing_about_its_end(restarted: Host) -> None:
    host = restarted
    host.run(REPACK_NGINX)
    began = live_by_hand(host)
    host.run(INSTALL_NGINX)
    assert_back(host, began)


def test_workers_that_are_all_stopped_verify_nothing(host: Host) -> None:
    host.run("kill -STOP $(pgrep -P $(cat /run/nginx.pid))")
    try:
        assert not host.status()["verified"]
    finally:
        host.run("kill -CONT $(pgrep -P $(cat /run/nginx.pid))")
    host.until(lambda: host.status()["verified"], 3)


@pytest.fixture
def agent(restarted: Host) -> Host:
    podman("cp", str(AGENT), f"{restarted.name}:/opt/ratchet-agent")
    return restarted


SOAK: dict[str, Any] = {
    "format": 1, "run": "r-1", "trial": 1, "host": "h", "design": "soak", "seed": 7, "lease_seconds": 20,
    "workload": {"rate": 20, "port": 8090, "requests": [{"path": "/"}]}, "block_seconds": 2, "burn_in_seconds": 0,
    "arms": {"control": BASELINE_ID, "variant": VARIANT_ID}, "pairs": [["variant"]] * 3,
    "limits": LIMITS.model_dump(),
}  # fmt: skip


@pytest.mark.parametrize("somebody", ["systemctl restart nginx", "/etc/init.d/nginx upgrade"])
def test_no_block_is_valid_from_a_restart_or_upgrade_of_nginx_on(agent: Host, somebody: str) -> None:
    host = agent
    host.run(f"rm -rf {PROBE}; mkdir {PROBE}")
    with subprocess.Popen(
        host.exec("python3", "/opt/ratchet-agent", "--root", PROBE, "run"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdin and running.stdout
        running.stdin.write(json.dumps(SOAK) + "\n")
        running.stdin.flush()
        host.until(lambda: host.level() == "level 4\n", 10)
        began = float(host.run(f"date +%s.%N; {somebody} >/dev/null"))
        events = [json.loads(line) for line in iter(running.stdout.readline, "")]
        running.stdin.close()
    blocks = [event["block"] for event in events if event["event"] == "block"]
    after = [block for block in blocks if block["started_at"] + block["seconds"] > began]
    assert after and not [block for block in after if block["valid"]], after
    assert "nginx was restarted" in after[-1]["invalid_reason"]
    assert events[-1]["event"] == "end" and events[-1]["restored"]["verified"], events[-1]
    assert_rests(host)


def test_a_restart_that_catches_a_file_which_no_reload_leaves_again_does_not_keep_it(restarted: Host) -> None:
    host = restarted
    zone = "limit_req_zone $binary_remote_addr zone=zone:1m rate=1000r/s;"
    baseline, variant = configuration(9, zone), configuration(4, zone.replace("binary_remote_addr", "server_name"))
    host.stage(baseline=baseline, variant=variant)
    assert host.ratchet("confirm", identity(baseline))["ok"]
    # nginx refuses the reload: the key of a zone cannot change. Until that is told, nginx.conf is the variant.
    host.run("(sleep 2; systemctl restart nginx) >/dev/null 2>&1 &")
    began = time.monotonic()
    answer = host.ratchet("switch", identity(variant), "--lease", str(LEASE))
    assert "could not be put back" in answer["error"], answer
    # Twice four seconds for what a reload would do, before nginx is started afresh.
    host.until(lambda: host.level() == "level 9\n", LEASE + 2 * GRACE - (time.monotonic() - began))
    host.until(lambda: len(host.run("pgrep -f 'nginx: master'").split()) == 1, 5)
    assert host.ratchet("rollback")["verified"] and by_mark(host) == {mark(host)}
