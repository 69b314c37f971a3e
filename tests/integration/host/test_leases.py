"""Whatever dies, the host is back on its baseline: at once when it can be noticed, with the lease when it cannot."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest

from tests.integration.host.conftest import BASELINE_ID, LEASE, VARIANT_ID, Client, Host, Session

pytestmark = pytest.mark.lab


def on_variant(host: Host, *, lease: int = 60) -> Session:
    """A session that has made the variant live."""
    session = host.session(lease=lease)
    assert session.ready == {"ok": True, "command": "ready", "confirmed": BASELINE_ID, "lease_seconds": lease}
    assert session.switch(VARIANT_ID)["ok"]
    assert host.level() == "level 4\n"
    return session


def assert_restored(host: Host) -> None:
    assert host.level() == "level 9\n"
    status = host.status()
    assert status["live"] == status["confirmed"] == BASELINE_ID
    assert status["lease"] is None and status["drift"] is None and status["verified"]


def test_a_session_switches_measures_and_ends_on_the_baseline(host: Host) -> None:
    session = host.session()
    before = session.ask("metrics")
    for configuration in (VARIANT_ID, BASELINE_ID, VARIANT_ID):
        answer = session.switch(configuration)
        assert answer["ok"] and answer["configuration"] == configuration and 0 < answer["seconds"] < 3
    assert set(session.ask("status")["nginx_pids"]["workers"]) == host.workers()
    after = session.ask("metrics")
    assert after["cpu_us"] > before["cpu_us"] and after["rss_bytes"] > 0 and after["open_files"] > 0
    assert session.ask("end") == {"ok": True, "command": "end", "configuration": BASELINE_ID, "verified": True}
    assert session.process.wait(5) == 0
    assert_restored(host)


def test_nginx_s_cpu_time_counts_the_workers_that_have_left(host: Host) -> None:
    session = host.session()
    readings = [session.ask("metrics")["cpu_us"]]
    for configuration in (VARIANT_ID, BASELINE_ID) * 2:
        host.run("for i in $(seq 300); do printf 'url = http://127.0.0.1:8090/\\n'; done | curl -s -K - >/dev/null")
        readings.append(session.ask("metrics")["cpu_us"])
        session.switch(configuration)
    assert readings == sorted(readings) and readings[-1] - readings[0] > 4 * 300 * 5


def test_no_request_fails_over_a_session_of_switches(host: Host) -> None:
    client = Client(host.address)
    client.start()
    session = host.session()
    for configuration in (VARIANT_ID, BASELINE_ID) * 4:
        assert session.switch(configuration)["ok"]
        time.sleep(0.1)
    session.ask("end")
    client.stop()
    assert client.failures == [] and client.answers > 100


@pytest.mark.parametrize("ending", ["end of input", "SIGTERM", "SIGHUP", "nobody reads"])
def test_a_session_that_ends_restores_the_baseline(host: Host, ending: str) -> None:
    session = on_variant(host)
    if ending == "end of input":
        session.hang_up()
    elif ending == "nobody reads":
        session.process.kill()
    else:
        host.run(f"kill -s {ending[3:]} {host.status()['lease']['session']}")
    host.until(lambda: host.status()["lease"] is None, 5)
    assert_restored(host)


def test_a_killed_session_is_undone_by_the_lease(host: Host) -> None:
    on_variant(host, lease=LEASE)
    host.run(f"kill -9 {host.status()['lease']['session']}")
    assert host.level() == "level 4\n" and host.status()["lease"]["session"] is None
    host.until(lambda: host.level() == "level 9\n", LEASE + 3)
    host.until(lambda: host.status()["lease"] is None, 3)
    assert_restored(host)


def test_a_session_that_hangs_loses_the_host_with_its_lease(host: Host) -> None:
    session = on_variant(host, lease=LEASE)
    host.run(f"kill -s STOP {host.status()['lease']['session']}")
    host.until(lambda: host.level() == "level 9\n", LEASE + 3)
    # It is in nobody's way: the next one ends it.
    assert host.session().ask("end")["verified"]
    assert session.read() == {}
    assert_restored(host)


def test_a_session_that_wakes_after_its_lease_changes_nothing(host: Host) -> None:
    session = on_variant(host, lease=LEASE)
    pid = host.status()["lease"]["session"]
    host.run(f"kill -s STOP {pid}")
    session.write(b'{"command":"switch","configuration":"%s"}\n' % VARIANT_ID.encode())
    host.until(lambda: host.level() == "level 9\n", LEASE + 3)
    host.run(f"kill -s CONT {pid}")
    answers = [session.read(), session.read()]
    assert not any(answer.get("command") == "switch" and answer["ok"] for answer in answers)
    assert_restored(host)


def test_a_controller_that_is_gone_is_noticed_by_the_lease_and_one_that_beats_is_not(host: Host) -> None:
    session = on_variant(host, lease=LEASE)
    for _ in range(2):
        time.sleep(LEASE * 0.7)
        assert session.ask("renew") == {"ok": True, "command": "renew"}
    assert host.level() == "level 4\n"
    host.until(lambda: host.level() == "level 9\n", LEASE + 3)
    # The session has noticed it as well.
    assert session.read()["verified"] is True


@pytest.mark.parametrize("design", ["switchback", "duet"])
def test_an_agent_that_switches_on_without_its_controller_is_ended_by_the_lease(host: Host, design: str) -> None:
    session, began = host.session(design=design, lease=LEASE), time.monotonic()
    asked = [{"configuration": VARIANT_ID}, {"configuration": BASELINE_ID}]
    if design == "duet":
        asked = [{"a": VARIANT_ID, "b": BASELINE_ID}, {"a": BASELINE_ID, "b": VARIANT_ID}]
    with contextlib.suppress(BrokenPipeError):  # it has ended with its lease
        while time.monotonic() - began < LEASE + 10:
            for words in asked:
                if not session.ask("assign" if design == "duet" else "switch", **words).get("ok"):
                    break
                time.sleep(0.3)
            else:
                continue
            break
    assert LEASE - 1 < time.monotonic() - began < LEASE + 3
    assert_restored(host)


def test_a_lease_is_an_end_on_the_clock_since_boot_and_renewals_stay_within_its_bound(host: Host) -> None:
    # The wall clock of a container is the machine's; what can be shown is that the lease does not depend on it.
    lines = ["python3 -c 'import time; print(time.clock_gettime(time.CLOCK_BOOTTIME))'", "cat /run/ratchet/lease"]
    session = host.session(lease=20, bound=30)
    assert session.switch(VARIANT_ID)["ok"]
    now, until, latest = (float(word) for word in host.run("; ".join(lines)).split()[:3])
    assert 15 < until - now <= 20 and 25 < latest - now <= 30
    time.sleep(1)
    assert session.ask("renew")["ok"]
    later = [float(word) for word in host.run("cat /run/ratchet/lease").split()[:2]]
    assert later[0] > until and later[1] == latest
    host.run("awk '{print $2 - 1, $2, $3, $4}' /run/ratchet/lease >/run/l && mv /run/l /run/ratchet/lease")
    assert session.ask("renew")["ok"]
    assert float(host.run("cut -d' ' -f1 /run/ratchet/lease")) <= latest


def test_without_a_keeper_nothing_is_switched(host: Host) -> None:
    host.run("systemctl stop ratchet-keeper")
    try:
        workers = host.workers()
        answer = host.session().ready
        assert not answer["ok"] and "ratchet-keeper does not run" in answer["error"]
        assert "ratchet-keeper does not run" in host.ratchet("confirm", VARIANT_ID)["error"]
        assert "ratchet-keeper does not run" in host.ratchet("switch", VARIANT_ID)["error"]
        assert host.workers() == workers and not host.status()["keeper"]
    finally:
        host.run("systemctl start ratchet-keeper")
    assert_restored(host)


def test_a_keeper_that_was_stopped_is_noticed_before_the_next_switch(host: Host) -> None:
    session = host.session()
    host.run("systemctl stop ratchet-keeper")
    try:
        assert "ratchet-keeper does not run" in session.switch(VARIANT_ID)["error"]
        assert not session.ask("renew")["ok"]
        assert host.level() == "level 9\n"
    finally:
        host.run("systemctl start ratchet-keeper")


def test_a_lease_that_is_gone_is_noticed_before_the_next_switch(host: Host) -> None:
    session = host.session()
    host.run("rm /run/ratchet/lease")
    assert "the lease is over or gone" in session.switch(VARIANT_ID)["error"]
    assert host.level() == "level 9\n"


def test_two_sessions_do_not_share_a_host_and_confirm_waits_for_neither(host: Host) -> None:
    first = on_variant(host)
    second = host.session()
    assert not second.ready["ok"] and "a trial is running" in second.ready["error"]
    assert "a trial is running" in host.ratchet("confirm", VARIANT_ID)["error"]
    assert first.switch(BASELINE_ID)["ok"]


def test_rollback_ends_a_session(host: Host) -> None:
    session = on_variant(host)
    answer = host.ratchet("rollback")
    assert answer["ok"] and answer["live"] == BASELINE_ID
    assert session.read()["verified"] is True
    assert_restored(host)


def test_a_switch_by_hand_lasts_as_long_as_its_lease(host: Host) -> None:
    assert host.ratchet("switch", VARIANT_ID, "--lease", "5")["lease_seconds"] == 5
    assert host.level() == "level 4\n"
    host.until(lambda: host.level() == "level 9\n", 8)
    host.until(lambda: host.status()["lease"] is None, 3)
    assert_restored(host)


def test_nginx_that_died_under_a_variant_comes_back_with_the_baseline(host: Host) -> None:
    session = on_variant(host)
    host.run("systemctl kill --signal=KILL nginx; sleep 0.3")
    # The keeper starts it within two seconds; the trial ends all the same.
    error = session.switch(BASELINE_ID)["error"]
    assert "not running" in error or "another master process" in error
    assert session.ask("end")["verified"] is True
    assert_restored(host)


def test_a_killed_switch_leaves_nothing_half_done(host: Host) -> None:
    # Killed at an arbitrary moment within its 0.1 s: the next command must find out what nginx really runs.
    for delay in (0.02, 0.05, 0.08, 0.11):
        session = host.session()
        pid = host.status()["lease"]["session"]
        session.write(b'{"command":"switch","configuration":"%s"}\n' % VARIANT_ID.encode())
        host.run(f"sleep {delay}; kill -9 {pid}")
        assert host.ratchet("rollback")["ok"]
        assert_restored(host)


def test_after_a_power_cut_nginx_starts_with_the_baseline(host: Host) -> None:
    on_variant(host)
    host.cut_power()
    host.boot()
    assert_restored(host)
    boot = host.run("systemctl show ratchet-keeper.service --property=ActiveEnterTimestampMonotonic --value")
    nginx = host.run("systemctl show nginx.service --property=ExecMainStartTimestampMonotonic --value")
    assert int(boot) <= int(nginx)
    # Known to run the baseline: a duet's session needs no reload.
    workers = host.workers()
    assert host.session().ask("end")["verified"] and host.workers() == workers


def test_a_broken_include_does_not_hold_the_baseline_up(host: Host) -> None:
    session = on_variant(host, lease=LEASE)
    host.put("/etc/nginx/sites-enabled/broken", "nonsense;\n")
    host.run(f"kill -9 {host.status()['lease']['session']}")
    # By the copy of it that was kept when it was confirmed.
    host.until(lambda: host.level() == "level 9\n", LEASE + 10)
    status = host.status()
    assert status["live"] == BASELINE_ID and status["verified"]
    assert "by their copy" in str(status["drift"]) or "runs their copy" in str(status["drift"])
    host.run("rm /etc/nginx/sites-enabled/broken")
    assert host.ratchet("rollback")["changed"]
    assert host.run("readlink /etc/nginx/nginx.conf").strip() == "ratchet/live/nginx.conf"
    assert_restored(host)
    assert session.process.wait(5) not in {0, signal.SIGKILL}


def test_a_stopped_nginx_does_not_stay_on_a_variant(host: Host) -> None:
    session = on_variant(host, lease=LEASE)
    host.run(f"kill -s STOP $(cat /run/nginx.pid); kill -9 {host.status()['lease']['session']}")
    assert host.level() == "level 4\n" and host.status()["verified"]
    host.until(lambda: host.level() == "level 9\n", LEASE + 10)
    host.until(lambda: host.status()["lease"] is None, 3)
    assert_restored(host)
    assert session.read() == {}


def test_stopped_workers_hold_the_baseline_up_for_no_more_than_a_moment(host: Host) -> None:
    session = on_variant(host)
    workers = host.run("pgrep -P $(cat /run/nginx.pid)").split()
    host.run(f"kill -s STOP {' '.join(workers)}")
    began = time.monotonic()
    answer = session.ask("end")
    assert answer["verified"], answer.get("error")
    assert time.monotonic() - began < 10
    assert host.level() == "level 9\n"
    assert not set(workers) & set(host.run("pgrep -P $(cat /run/nginx.pid)").split())
    assert_restored(host)


def test_a_switch_is_refused_at_once_when_workers_are_stopped(host: Host) -> None:
    session = on_variant(host)
    host.run("kill -s STOP $(pgrep -P $(cat /run/nginx.pid))")
    began = time.monotonic()
    answer = session.switch(BASELINE_ID)
    assert not answer["ok"] and "stopped (SIGSTOP" in answer["error"]
    assert session.ask("end")["verified"]
    assert time.monotonic() - began < 10
    assert host.level() == "level 9\n"
    assert_restored(host)


def test_a_bad_line_is_answered_and_the_session_goes_on(host: Host) -> None:
    session = host.session()
    for line in (
        b"\n", b"[]\n", b'"switch"\n', b"\xff\xfe\n", b'{"command":"switch"}\n', b"[" * 60_000 + b"\n",
        b'{"command":"switch","configuration":"../../../etc"}\n', b'{"command":"assign","a":1,"b":2}\n',
        b'{"command":"switch","configuration":"0123456789abcdef"}\n', b'{"command":"end","more":1}\n',
    ):  # fmt: skip
        session.write(line)
        answer = session.read()
        assert not answer["ok"] and answer["error"] and "internal" not in answer["error"]
    assert session.ask("end")["verified"] is True


def test_a_line_without_end_ends_the_session(host: Host) -> None:
    session = on_variant(host)
    session.write(b"x" * 70_000)
    session.hang_up()
    host.until(lambda: host.status()["lease"] is None, 5)
    assert_restored(host)
