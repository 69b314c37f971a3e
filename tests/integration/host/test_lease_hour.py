"""The hour at which a lease ends: written before anything goes live, and moved by nothing but its holder's renewal."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.host.conftest import BASELINE_ID, LEASE, PROGRAM, VARIANT_ID, Host, configuration, identity
from tests.integration.host.way_back import assert_back, assert_rests, killed_at, live_by_hand, under_audit

pytestmark = pytest.mark.lab

OTHER = configuration(3)
OTHER_ID = identity(OTHER)


@pytest.fixture
def on_variant(host: Host) -> tuple[Host, float]:
    """A host on a variant that somebody has switched to, and when."""
    host.stage(other=OTHER)
    return host, live_by_hand(host)


@pytest.fixture
def hidden(host: Host) -> Iterator[Host]:
    """A host whose programs may be moved to /run/hidden."""
    host.run("mkdir -p /run/hidden")
    yield host
    host.run("for program in /run/hidden/*; do [ -e $program ] && mv $program /usr/bin/; done; true")


@pytest.mark.parametrize("reload", ["daemon-reload", "daemon-reexec"])
def test_systemd_that_reads_its_units_again_and_again_moves_no_lease(host: Host, reload: str) -> None:
    began = live_by_hand(host)
    host.run(f"systemd-run --quiet --unit=reloads bash -c 'while sleep 1; do systemctl {reload}; done'")
    try:
        assert_back(host, began)
    finally:
        # While systemd executes itself anew, it may not answer.
        host.run("systemctl stop reloads || { sleep 1; systemctl stop reloads; }")


def test_isolating_a_target_ends_no_lease(on_variant: tuple[Host, float]) -> None:
    host, began = on_variant
    host.run("systemctl isolate multi-user.target")
    assert_back(host, began)


def test_arming_that_is_killed_at_any_step_leaves_the_lease_before_or_a_new_one(host: Host) -> None:
    host.stage(other=OTHER)
    step, killed = 1, True
    while killed:
        began = live_by_hand(host)
        killed = killed_at(host, step, "switch", OTHER_ID, "--lease", "5", written=True)
        lease = host.status()["lease"]
        if lease is None:
            assert_back(host, began)
        else:
            assert lease["seconds_left"] is not None and lease["seconds_left"] <= 5.1, (step, lease)
        step += 1
    assert step > 5
    began = live_by_hand(host)
    assert killed_at(host, step // 2, "switch", OTHER_ID, "--lease", "5", written=True)
    assert_back(host, began)


def test_arming_while_systemd_is_too_busy_to_answer_leaves_no_variant_behind(hidden: Host) -> None:
    hidden.stage(other=OTHER)
    began = live_by_hand(hidden)
    hidden.run(
        "mv /usr/bin/systemd-run /run/hidden/; printf '#!/bin/sh\\nexec sleep 45\\n' >/usr/bin/systemd-run;"
        f"chmod +x /usr/bin/systemd-run; {PROGRAM} switch {OTHER_ID} --lease 5",
        check=False,
    )
    # Where the switch has waited for it, the first lease is over; where it has not, a second one has begun.
    assert_back(hidden, max(began, time.monotonic()))


def test_the_way_back_waits_for_no_answer_of_systemd_s(hidden: Host) -> None:
    began = live_by_hand(hidden)
    hidden.run(
        "for name in systemctl systemd-run; do mv /usr/bin/$name /run/hidden/;"
        "printf '#!/bin/sh\\nexec sleep 45\\n' >/usr/bin/$name; chmod +x /usr/bin/$name; done"
    )
    hidden.until(lambda: hidden.level() == "level 9\n", LEASE + 10 - (time.monotonic() - began))


def test_a_renewal_goes_no_further_than_the_bound_of_the_arming(host: Host) -> None:
    session = host.session(lease=5, bound=7)
    began = time.monotonic()
    assert session.switch(VARIANT_ID)["ok"]
    with contextlib.suppress(BrokenPipeError):  # it has ended with its lease
        while time.monotonic() - began < 7 + 10 and session.ask("renew").get("ok"):
            time.sleep(0.5)
    assert 6 < time.monotonic() - began < 10
    assert_back(host, began, lease=7)


def test_a_confirm_that_has_waited_for_a_session_to_begin_does_not_end_its_lease(host: Host) -> None:
    host.run("systemd-run --quiet --unit=holds-lock flock /run/ratchet/lock sleep 60")
    host.until(lambda: host.run("pgrep -f 'sleep 60'", check=False) != "", 5)
    # It has seen that no session runs, waits for the lock, and is slow to take it.
    host.run(f"systemd-run --quiet --unit=confirms {PROGRAM} confirm {BASELINE_ID}; sleep 0.7")
    host.run("systemctl kill --signal=STOP confirms; systemctl stop holds-lock")
    session = host.session(lease=20)
    assert session.ready["ok"], session.ready
    host.run("systemctl kill --signal=CONT confirms")
    host.until(lambda: "running" not in host.run("systemctl show confirms --property=SubState"), 15)
    assert session.switch(VARIANT_ID)["ok"]
    assert session.ask("end")["verified"]
    assert_rests(host)


# At the last moment before the link to the baseline moves.
_HELD_UP = """
def audit(event, told):
    if event == "os.rename" and ".confirmed.new" in str(told[0]):
        os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize("hook", [_HELD_UP, _HELD_UP.replace("os.rename", "os.symlink").replace("told[0]", "told[1]")])
def test_a_confirm_that_is_held_up_beyond_its_lease_confirms_nothing(host: Host, hook: str) -> None:
    with ThreadPoolExecutor() as pool:
        confirm = pool.submit(under_audit, host, hook, "confirm", VARIANT_ID)
        stopped = f"pgrep --runstates T -f '{PROGRAM} confirm'"
        host.until(lambda: bool(host.run(stopped, check=False)), 15)
        assert host.level() == "level 4\n"
        # Its minute is over.
        host.run("sed -i 's/^[0-9.]*/1/' /run/ratchet/lease")
        host.until(lambda: host.level() == "level 9\n", 10)
        host.run(f"kill -CONT $({stopped})")
        answer = json.loads(confirm.result().stdout)
    assert not answer["ok"] and "lease" in answer["error"], answer
    assert_rests(host)


_EDITED = """
done = False
def audit(event, told):
    global done
    if event == "os.kill" and told[1] == signal.SIGHUP and not done:
        done = True
        os.system("sleep 1; echo '# late' >>/etc/nginx/sites-enabled/late")
"""


def test_what_is_edited_while_nginx_reloads_is_not_confirmed_with_it(host: Host) -> None:
    host.put("/etc/nginx/sites-enabled/late", "# early\n")
    try:
        assert host.ratchet("confirm", BASELINE_ID)["drift"] is None
        answer = json.loads(under_audit(host, _EDITED, "confirm", VARIANT_ID).stdout)
        assert answer["ok"] and "+# late" in answer["drift"]["/etc/nginx/sites-enabled/late"], answer
    finally:
        host.run("rm /etc/nginx/sites-enabled/late")
