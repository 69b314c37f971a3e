"""The way back needs no room, no file of its own that may be spoilt, and no peace in anybody's included files."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from controller.lab.commands import podman
from controller.lab.machine import global_options
from tests.integration.host.conftest import BASELINE_ID, LEASE, VARIANT_ID, Host
from tests.integration.host.way_back import (
    GRACE,
    assert_back,
    assert_rests,
    by_mark,
    live_by_hand,
    mark,
    restart_nginx,
)

pytestmark = pytest.mark.lab

SITE = "/etc/nginx/sites-enabled/unfinished"


@pytest.fixture
def small_run(host: Host) -> Iterator[Host]:
    """/run as on a server with little memory."""
    size = host.run("findmnt --noheadings --bytes --output SIZE /run").strip()
    used = int(host.run("df --block-size=1k --output=used /run | tail -n 1"))
    host.run(f"mount -o remount,size={used + 1024}k /run")
    yield host
    empty(host)
    host.run(f"mount -o remount,size={size} /run")


def fill(host: Host) -> None:
    """Somebody keeps writing there: not a page is free for longer than an instant."""
    script = "while :; do cat /dev/zero >>/run/filler; sleep 0.01; done 2>/dev/null"
    host.run(f"(setsid bash -c '{script}' >/dev/null & echo $! >/tmp/filling) 2>/dev/null")
    host.until(lambda: host.run("df --output=avail /run | tail -n 1").strip() == "0", 5)


def empty(host: Host) -> None:
    host.run("[ ! -e /tmp/filling ] || kill -KILL -- -$(cat /tmp/filling); rm -f /tmp/filling /run/filler", check=False)


def test_a_run_that_is_full_at_arming_lets_nothing_go_live(small_run: Host) -> None:
    host = small_run
    fill(host)
    answer = host.ratchet("switch", VARIANT_ID, "--lease", "5")
    assert not answer["ok"] and ("No space left" in answer["error"] or "armed" in answer["error"]), answer
    assert host.level() == "level 9\n" and host.status()["live"] == BASELINE_ID
    assert not host.session(lease=5).ready["ok"]
    empty(host)
    assert_rests(host)


def test_a_run_that_is_full_at_a_renewal_moves_the_hour_neither_way(small_run: Host) -> None:
    host = small_run
    session = host.session(lease=6)
    assert session.switch(VARIANT_ID)["ok"]
    fill(host)
    began = time.monotonic()
    for _ in range(2):
        session.ask("renew")
        time.sleep(1)
    assert host.level() == "level 4\n"
    assert_back(host, began + 2, lease=6)
    empty(host)


def test_a_run_that_is_full_at_the_end_holds_nothing_up_and_costs_one_reload(small_run: Host) -> None:
    host = small_run
    began = live_by_hand(host)
    fill(host)
    host.until(lambda: host.level() == "level 9\n", LEASE + GRACE - (time.monotonic() - began))
    host.until(lambda: by_mark(host) == {mark(host)}, 5)
    # As often as it looks in so many seconds, it need not reload again.
    workers = host.workers()
    time.sleep(6)
    assert host.workers() == workers
    empty(host)
    assert_rests(host)


def test_spoilt_compiled_files_end_neither_the_way_back_nor_the_program(host: Host) -> None:
    began = live_by_hand(host)
    # As a nearly full /run leaves them: times and sizes of their sources agree, and the end is missing.
    host.run("find /run /var/lib/ratchet /usr/local/lib/ratchet -name '*.pyc' -size +5k -exec truncate -s 4096 {} +")
    try:
        assert_back(host, began)
        assert host.ratchet("rollback")["ok"]
    finally:
        host.run("find /run/ratchet -name '*.pyc' -delete")


def test_a_broken_included_file_does_not_hold_the_baseline_up(host: Host) -> None:
    session = host.session(lease=LEASE)
    assert session.switch(VARIANT_ID)["ok"]
    began = time.monotonic()
    host.put(SITE, "server { listen 8557; location / {\n")
    try:
        session.hang_up()
        host.until(lambda: host.level() == "level 9\n", LEASE + GRACE - (time.monotonic() - began))
        host.until(lambda: by_mark(host) == {mark(host)}, 8)
        status = host.status()
        assert status["verified"] and SITE in str(status["drift"]), status
        # The operator's file is his; a restart of nginx does not bring the variant back either.
        assert "listen 8557" in host.run(f"cat {SITE}")
        host.run("systemctl restart nginx", check=False)
        assert host.get()[1] in {"level 9\n", ""}
    finally:
        host.run(f"rm -f {SITE}")
    answer = host.ratchet("rollback")
    assert answer["ok"] and answer["verified"]
    assert_rests(host)


def test_a_configuration_folder_that_is_read_only_at_boot_does_not_hold_the_baseline_up(host: Host) -> None:
    frozen = "/etc/systemd/system/frozen.service"
    host.put(
        frozen,
        "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\n"
        "Before=ratchet-keeper.service nginx.service\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "ExecStart=/bin/sh -c 'mount --bind /etc/nginx/ratchet /etc/nginx/ratchet &&"
        " mount -o remount,ro,bind /etc/nginx/ratchet'\n"
        "[Install]\nWantedBy=multi-user.target nginx.service\n",
    )
    host.run("systemctl enable --quiet frozen")
    try:
        live_by_hand(host, lease=60)
        host.cut_power()
        podman(*global_options(), "start", host.name)
        host.until(lambda: host.run("systemctl is-system-running", check=False).strip() in {"running", "degraded"}, 60)
        assert "ratchet" in host.run("findmnt /etc/nginx/ratchet")
        # By the copy of it, which needs nothing of that folder.
        host.until(lambda: host.level() == "level 9\n", GRACE)
        assert "runs their copy" in str(host.status()["drift"])
        host.run("umount /etc/nginx/ratchet")
        assert host.ratchet("rollback")["changed"]
        assert_rests(host)
    finally:
        host.run(f"umount /etc/nginx/ratchet; systemctl disable --quiet frozen; rm -f {frozen}", check=False)
        if host.run("systemctl is-active nginx", check=False).strip() != "active":
            restart_nginx(host)


def test_an_edit_that_nginx_tests_well_and_does_not_reload_to_does_not_hold_the_baseline_up(host: Host) -> None:
    zone = "proxy_cache_path /var/cache/nginx-zone levels=1:2 keys_zone=zone:1m;\n"
    host.put(SITE, zone)
    try:
        assert host.ratchet("confirm", BASELINE_ID)["ok"]
        began = live_by_hand(host)
        # A cache's levels cannot change within one nginx; `nginx -t` does not know which is running.
        host.put(SITE, zone.replace("1:2", "2:2"))
        host.run("nginx -t -q")
        host.until(lambda: host.level() == "level 9\n", LEASE + GRACE - (time.monotonic() - began))
        answer = host.ratchet("rollback")
        assert answer["ok"] and answer["verified"] and SITE in answer["drift"] and "nginx.conf" in answer["drift"]
        # What runs is what nginx would start with.
        assert by_mark(host) == {mark(host)}
    finally:
        host.run(f"rm -f {SITE}; systemctl restart nginx")
    assert host.ratchet("rollback")["ok"] and host.ratchet("confirm", BASELINE_ID)["ok"]
    assert_rests(host)
