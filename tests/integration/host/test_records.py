"""A baseline outlives lost links, lost folders and deaths between two writes; who is refused has changed nothing."""

from __future__ import annotations

import json
import time

import pytest

from tests.integration.host.conftest import BASELINE, BASELINE_ID, LEASE, VARIANT, VARIANT_ID, Host
from tests.integration.host.way_back import (
    GRACE,
    assert_back,
    assert_rests,
    by_mark,
    killed_at,
    live_by_hand,
    mark,
    start_over,
    under_audit,
)

pytestmark = pytest.mark.lab

SITE = "/etc/nginx/sites-enabled/shop"
# A stage beside it prunes a configuration between two looks at it: here just before it is read.
PRUNED = f"""
def audit(event, told):
    if event == "open" and "/{VARIANT_ID}/" in str(told[0]):
        shutil.rmtree("/etc/nginx/ratchet/{VARIANT_ID}", ignore_errors=True)
"""


@pytest.mark.parametrize("lost", ["confirmed", BASELINE_ID])
def test_a_lost_link_or_folder_is_made_anew_from_the_record(host: Host, lost: str) -> None:
    began = live_by_hand(host)
    host.run(f"rm -r /etc/nginx/ratchet/{lost}")
    try:
        host.until(lambda: host.level() == "level 9\n", LEASE + GRACE - (time.monotonic() - began))
        # Where nothing but the flattened copy was left, a rollback makes the tree anew.
        answer = host.ratchet("rollback")
        assert answer["ok"] and answer["changed"], answer
        assert_back(host, began)
        text = host.run(f"sed '1s/^worker_rlimit_core [0-9]*; //' /etc/nginx/ratchet/{BASELINE_ID}/nginx.conf")
        assert text == BASELINE
    except BaseException:
        start_over(host)
        raise


def test_a_confirm_that_is_killed_at_any_step_leaves_the_one_baseline_or_the_other(host: Host) -> None:
    # At any step: its record, its link and what drift is measured against are of one configuration.
    both = json.dumps({"configurations": {"baseline": BASELINE, "variant": VARIANT}, "keep": 5})
    check = f"""
echo '# by hand' >{SITE}; ratchet-host status; rm {SITE}; ratchet-host status
echo '# by hand' >>/etc/nginx/ratchet/$(readlink /etc/nginx/ratchet/confirmed)/nginx.conf; ratchet-host status
ratchet-host rollback; ratchet-host status
[ $(readlink /etc/nginx/ratchet/confirmed) = {BASELINE_ID} ] || {{
  ratchet-host stage >/dev/null; ratchet-host rollback --to {BASELINE_ID}; }}"""
    step, seen = 1, set()
    while killed_at(host, step, "confirm", VARIANT_ID):
        answers = [json.loads(line) for line in host.run(check, stdin=both).splitlines() if line.startswith("{")]
        added, quiet, edited, rolled, rests, *again = answers
        assert added["ok"] and SITE in (added["drift"] or {}), (step, added)
        # The variant may be live still, under the lease of the confirm; nobody has edited anything.
        assert quiet["ok"] and quiet["drift"] is None, (step, quiet)
        confirmed = quiet["confirmed"]
        assert list(edited["drift"] or {}) == [f"ratchet/{confirmed}/nginx.conf"], (step, edited)
        assert rolled["ok"] and rests["live"] == rests["confirmed"] == confirmed and rests["verified"], (step, rolled)
        assert all(answer["ok"] for answer in again), (step, again)
        seen.add(confirmed)
        step += 1
    assert step > 5 and BASELINE_ID in seen


def test_status_beside_a_stage_tells_no_edit_that_nobody_made(host: Host) -> None:
    done = under_audit(host, PRUNED, "status")
    answer = json.loads(done.stdout)
    assert answer["ok"] and answer["drift"] is None, answer
    assert answer["live"] == BASELINE_ID


def test_a_refused_session_leaves_a_file_that_was_replaced_by_hand(host: Host) -> None:
    own = BASELINE.replace('"level 9', '"level by hand')
    host.run("rm /etc/nginx/nginx.conf")
    host.put("/etc/nginx/nginx.conf", own)
    host.run("systemctl reload nginx")
    host.until(lambda: host.level() == "level by hand\n", 3)
    workers = host.workers()
    for design in ("switchback", "duet"):
        session = host.session(lease=5, design=design)
        assert not session.ready["ok"] and "by hand" in session.ready["error"]
        assert session.process.wait(15) != 0
    assert host.run("test ! -L /etc/nginx/nginx.conf && cat /etc/nginx/nginx.conf") == own
    assert host.level() == "level by hand\n" and host.workers() == workers


def test_a_refused_session_starts_no_nginx_that_was_stopped_for_maintenance(host: Host) -> None:
    host.run("systemctl stop nginx")
    for design in ("switchback", "duet"):
        session = host.session(lease=5, design=design)
        assert not session.ready["ok"] and "not running" in session.ready["error"]
        assert session.process.wait(15) != 0
    assert host.run("systemctl is-active nginx", check=False).strip() == "inactive"


def test_a_rollback_that_starts_a_dead_nginx_says_that_it_changed_something(host: Host) -> None:
    host.run("systemctl kill --signal=KILL nginx; sleep 0.3")
    answer = host.ratchet("rollback")
    assert answer["ok"] and answer["verified"] and answer["changed"]
    assert not host.ratchet("rollback")["changed"]
    assert by_mark(host) == {mark(host)}
    assert_rests(host)
