"""The keeper: resident, hard to end, cheap, and with hands for nothing but what Ratchet has put live."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from controller.lab.commands import podman
from tests.integration.host.conftest import BASELINE, BASELINE_ID, LEASE, PROGRAM, VARIANT_ID, Host
from tests.integration.host.way_back import GRACE, assert_back, assert_rests, by_mark, live_by_hand, mark

pytestmark = pytest.mark.lab

UNIT = "ratchet-keeper"
# It looks every two seconds.
LOOKS_SECONDS = 7.0
OWN = BASELINE.replace('"level 9', '"level by hand')
MEASURED_SECONDS = 30
SHARE = 0.001
MEMORY_KB = 16 * 1024


def keeper(host: Host) -> int:
    return int(host.run(f"systemctl show {UNIT} --property=MainPID --value"))


@pytest.mark.parametrize("how", ["KILL", "STOP"])
def test_a_keeper_that_dies_or_hangs_is_there_again_and_goes_back(host: Host, how: str) -> None:
    began = live_by_hand(host)
    before = keeper(host)
    assert before
    host.run(f"kill -{how} {before}")
    # systemd kills one that is silent for so long.
    hangs = int(host.run(f"systemctl show {UNIT} --property=WatchdogUSec --value | sed 's/[^0-9]*s$//'"))
    assert 0 < hangs <= 30
    assert_back(host, began, lease=LEASE if how == "KILL" else max(LEASE, hangs))
    assert keeper(host) not in {0, before}


def test_a_keeper_that_is_killed_all_the_while_goes_back_all_the_same(host: Host) -> None:
    began = live_by_hand(host)
    host.run(f"systemd-run --quiet --unit=kills bash -c 'while sleep 3; do systemctl kill --signal=KILL {UNIT}; done'")
    try:
        assert_back(host, began)
    finally:
        host.run(f"systemctl stop kills; systemctl reset-failed {UNIT}; systemctl start {UNIT}")


def test_a_keeper_that_was_stopped_in_a_lease_goes_back_when_it_starts(host: Host) -> None:
    live_by_hand(host)
    host.run(f"systemctl stop {UNIT}; sleep {LEASE + 1}; systemctl start {UNIT}")
    assert_back(host, time.monotonic(), lease=0)


def test_nginx_that_was_stopped_or_edited_by_its_operator_is_left_to_him(host: Host) -> None:
    # Three things that he does on his baseline, and that nobody undoes.
    before = keeper(host)
    host.run("systemctl stop nginx")
    time.sleep(LOOKS_SECONDS)
    assert host.run("systemctl is-active nginx", check=False).strip() == "inactive"
    host.run("systemctl start nginx")
    host.run(
        f"sed -i 's/\"level 9/\"level by hand/' /etc/nginx/ratchet/{BASELINE_ID}/nginx.conf; systemctl reload nginx"
    )
    time.sleep(LOOKS_SECONDS)
    assert host.level() == "level by hand\n" and f"ratchet/{BASELINE_ID}/nginx.conf" in host.status()["drift"]
    assert host.ratchet("rollback")["saved"]
    host.run("rm /etc/nginx/nginx.conf")
    host.put("/etc/nginx/nginx.conf", OWN)
    host.run("systemctl reload nginx")
    time.sleep(LOOKS_SECONDS)
    assert host.level() == "level by hand\n" and host.status()["drift"]
    assert host.run("cat /etc/nginx/nginx.conf") == OWN
    assert keeper(host) == before


def test_a_deploy_of_the_operator_s_in_a_lease_outlives_it(host: Host) -> None:
    live_by_hand(host)
    host.run("rm /etc/nginx/nginx.conf")
    host.put("/etc/nginx/nginx.conf", OWN)
    host.run("systemctl reload nginx")
    host.until(lambda: host.level() == "level by hand\n", 3)
    time.sleep(LEASE + 4)
    assert host.level() == "level by hand\n" and host.run("cat /etc/nginx/nginx.conf") == OWN
    assert "nginx.conf" in host.status()["drift"]
    # A restart of his serves his file.
    host.run("systemctl restart nginx")
    assert host.level() == "level by hand\n"


def test_nginx_that_fell_over_under_a_variant_comes_back_with_the_baseline(host: Host) -> None:
    began = live_by_hand(host)
    host.run("systemctl kill --signal=KILL nginx")
    host.until(lambda: host.level() == "level 9\n", LEASE + GRACE - (time.monotonic() - began))
    assert by_mark(host) == {mark(host)}
    assert_rests(host)


def test_going_back_is_told_in_the_journal(host: Host) -> None:
    since = host.run("date +%s").strip()
    began = live_by_hand(host)
    assert_back(host, began)
    journal = host.run(f"journalctl -u {UNIT} --since=@{since} --output=cat --no-pager")
    assert VARIANT_ID in journal or BASELINE_ID in journal, journal


def test_the_keeper_costs_next_to_nothing(host: Host) -> None:
    # Half of the time a lease runs, so that it has something to look at.
    assert host.ratchet("switch", VARIANT_ID, "--lease", "40")["ok"]
    pid, began = keeper(host), time.monotonic()
    first = costs(host, pid)
    time.sleep(MEASURED_SECONDS / 2)
    leased = costs(host, pid)
    host.run(f"{PROGRAM} rollback")
    time.sleep(max(0.0, MEASURED_SECONDS - (time.monotonic() - began)))
    seconds, last = time.monotonic() - began, costs(host, pid)
    assert keeper(host) == pid
    used = (last["nanoseconds"] - first["nanoseconds"]) / 1e9
    assert used <= SHARE * seconds, f"{used * 1000:.1f} ms in {seconds:.0f} s"
    # No process a look: none was waited for. The end of a lease may have its own.
    assert leased["pages of children"] == first["pages of children"]
    time.sleep(LOOKS_SECONDS)
    assert costs(host, pid)["pages of children"] == last["pages of children"]
    assert last["memory"] <= MEMORY_KB and last["memory"] - first["memory"] < 256, (first, last)
    assert host.run(f"systemctl show {UNIT} --property=MemoryMax --value").strip() not in {"infinity", ""}


def costs(host: Host, pid: int) -> dict[str, int]:
    """By the kernel's account: time on a core (ns), memory (kB), and page faults of children that were waited for."""
    used, stat, memory = host.run(
        f"cat /proc/{pid}/schedstat /proc/{pid}/stat; grep VmRSS /proc/{pid}/status"
    ).splitlines()
    fields = stat.rpartition(")")[2].split()
    return {
        "nanoseconds": int(used.split()[0]),
        "pages of children": int(fields[8]) + int(fields[10]),
        "memory": int(memory.split()[1]),
    }


def test_a_process_of_another_account_makes_the_keeper_do_nothing(host: Host) -> None:
    # It has the name, the title and the limit of a worker that runs something else.
    named = "prlimit --core=77:77 --pid $$; exec -a 'nginx: worker process' /tmp/named/nginx 60"
    host.run("mkdir -p /tmp/named; cp /bin/sleep /tmp/named/nginx; chmod -R 755 /tmp/named; systemctl stop nginx")
    host.put("/etc/nginx/own.conf", OWN)
    host.run("mv /etc/nginx/own.conf /etc/nginx/nginx.conf")
    host.run(f'systemd-run --quiet --unit=named --uid=www-data bash -c "{named}"')
    try:
        # It looks at all processes every ten seconds.
        time.sleep(13)
        assert host.run("systemctl is-active nginx", check=False).strip() == "inactive"
        assert host.run("cat /etc/nginx/nginx.conf") == OWN
        assert host.run("systemctl is-active named", check=False).strip() == "active"
    finally:
        host.run("systemctl stop named; rm -r /tmp/named")
    assert host.ratchet("rollback")["verified"]


def test_a_systemd_that_hangs_does_not_hold_the_baseline_up(host: Host) -> None:
    systemd = int(json.loads(podman("inspect", host.name))[0]["State"]["Pid"])
    # Its queue for what the keeper tells it is full before the lease is over.
    began = live_by_hand(host, lease=28)
    os.kill(systemd, signal.SIGSTOP)
    try:
        host.until(lambda: host.level() == "level 9\n", 28 + GRACE - (time.monotonic() - began))
    finally:
        os.kill(systemd, signal.SIGCONT)
    assert_back(host, time.monotonic(), lease=0)
