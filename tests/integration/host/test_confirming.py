"""From the distribution's configuration to a baseline, to the next one, and back."""

from __future__ import annotations

import json

import pytest

from tests.integration.host.conftest import (
    BASELINE,
    BASELINE_ID,
    VARIANT,
    VARIANT_ID,
    Host,
    configuration,
    held_port,
    identity,
)

pytestmark = pytest.mark.lab

REFUSED = "server { listen 8092; location / { bogus on; } }"


@pytest.fixture
def untouched(fresh_host: Host) -> Host:
    """The host as nginx's package leaves it."""
    fresh_host.run(
        "ratchet-host rollback --to original;"
        "cp --remove-destination /etc/nginx/ratchet/original/nginx.conf /etc/nginx/;"
        "rm -rf /etc/nginx/ratchet /var/lib/ratchet /run/ratchet; systemctl restart nginx"
    )
    return fresh_host


def test_a_first_push_leaves_the_original_live_and_keeps_a_copy(untouched: Host) -> None:
    workers = untouched.workers()
    own = untouched.run("cat /etc/nginx/nginx.conf")
    answer = untouched.stage(baseline=BASELINE)
    assert answer["ok"] and answer["changed"] and answer["live"] is None and answer["confirmed"] is None
    assert answer["configurations"]["baseline"]["id"] == BASELINE_ID
    assert (
        "+    gzip on; gzip_types application/json; gzip_comp_level 9;"
        in answer["configurations"]["baseline"]["diff_from_live"]
    )
    assert untouched.run("test ! -L /etc/nginx/nginx.conf && cat /etc/nginx/nginx.conf") == own
    assert untouched.run("cat /etc/nginx/ratchet/original/nginx.conf") == own
    assert untouched.workers() == workers


def test_check_mode_tests_a_configuration_and_leaves_nothing(untouched: Host) -> None:
    before = untouched.run("find /etc/nginx | sort")
    answer = untouched.stage("--check", baseline=BASELINE, bad=configuration(4, REFUSED))
    assert answer["configurations"]["baseline"] | {"diff_from_live": "", "sockets": ""} == {
        "id": BASELINE_ID, "ok": True, "changed": True, "error": "", "diff_from_live": "", "sockets": "",
    }  # fmt: skip
    assert "bogus" in answer["configurations"]["bad"]["error"]
    assert untouched.run("find /etc/nginx | sort") == before


def test_the_first_confirm_adopts_the_host_and_the_original_is_one_rollback_away(untouched: Host) -> None:
    own = untouched.run("cat /etc/nginx/nginx.conf")
    untouched.stage(baseline=BASELINE)
    answer = untouched.ratchet("confirm", BASELINE_ID)
    assert answer["ok"], answer
    assert answer["changed"] and answer["live"] == answer["confirmed"] == BASELINE_ID and answer["drift"] is None
    assert untouched.level() == "level 9\n"
    assert untouched.run("readlink /etc/nginx/nginx.conf").strip() == "ratchet/live/nginx.conf"
    assert not untouched.ratchet("confirm", BASELINE_ID)["changed"]
    back = untouched.ratchet("rollback", "--to", "original")
    assert back["ok"] and back["changed"]
    assert untouched.run("cat /etc/nginx/nginx.conf") == own
    assert untouched.get(80)[0] == 200 and untouched.get(8090)[0] == 0


def test_a_first_confirm_that_nginx_does_not_take_leaves_the_original_live(untouched: Host) -> None:
    untouched.stage(baseline=BASELINE)
    with held_port(untouched, 8090):
        answer = untouched.ratchet("confirm", BASELINE_ID)
    assert (
        not answer["ok"] and "Address already in use" in answer["error"] and "original is live again" in answer["error"]
    )
    assert untouched.get(80)[0] == 200
    assert untouched.status()["confirmed"] is None and untouched.status()["lease"] is None


def test_a_first_confirm_that_fails_leaves_the_operator_s_newer_file(untouched: Host) -> None:
    untouched.stage(baseline=BASELINE)
    # He goes on working on his server after the push.
    own = untouched.run(
        "cd /etc/nginx && echo '# a day later' >>nginx.conf && systemctl reload nginx && cat nginx.conf"
    )
    with held_port(untouched, 8090):
        assert not untouched.ratchet("confirm", BASELINE_ID)["ok"]
    assert untouched.run("cat /etc/nginx/nginx.conf") == own
    assert untouched.get(80)[0] == 200


def test_a_configuration_that_nginx_refuses_is_not_staged_and_the_others_are(host: Host) -> None:
    bad = configuration(3, REFUSED)
    good = configuration(3)
    answer = host.stage(bad=bad, good=good)
    assert not answer["ok"] and 'unknown directive "bogus"' in answer["error"]
    assert answer["configurations"]["good"]["ok"]
    assert identity(good) in host.status()["staged"] and identity(bad) not in host.status()["staged"]
    refused = host.ratchet("confirm", identity(bad))
    assert not refused["ok"] and "not staged here" in refused["error"]
    assert host.status()["live"] == BASELINE_ID


def test_staging_again_changes_nothing_and_old_configurations_go(host: Host) -> None:
    assert not host.stage(baseline=BASELINE, variant=VARIANT)["changed"]
    texts = {f"v{level}-{count}": configuration(level, "#" * count) for level in (1, 2, 3) for count in (1, 2, 3)}
    host.stage(**texts)
    host.stage(baseline=BASELINE, variant=VARIANT)
    kept = host.status()["staged"]
    assert {BASELINE_ID, VARIANT_ID} <= set(kept) and len(kept) == 7


def test_a_confirm_moves_the_baseline_and_a_rollback_to_an_id_moves_it_back(host: Host) -> None:
    assert host.ratchet("confirm", VARIANT_ID)["previous"] == BASELINE_ID
    assert host.level() == "level 4\n" and host.status()["lease"] is None
    answer = host.ratchet("rollback", "--to", BASELINE_ID)
    assert answer["ok"] and answer["changed"] and answer["confirmed"] == BASELINE_ID and host.level() == "level 9\n"
    assert not host.ratchet("rollback")["changed"]


def test_a_reload_that_nginx_does_not_take_is_noticed_and_undone_within_seconds(host: Host) -> None:
    text = configuration(4, "server { listen 8091; }")
    host.stage(variant=text)
    workers = host.workers()
    with held_port(host, 8091):
        answer = host.ratchet("confirm", identity(text))
        assert not answer["ok"] and "Address already in use" in answer["error"]
        assert f"{BASELINE_ID} is live again" in answer["error"]
    # Under users nothing is switched to and fro that opens a socket.
    assert "listens on other sockets" in host.session().switch(identity(text))["error"]
    host.close_sessions()
    status = host.status()
    assert status["live"] == status["confirmed"] == BASELINE_ID and status["lease"] is None
    assert host.level() == "level 9\n" and workers


def test_workers_that_crash_at_once_are_no_configuration_to_confirm(host: Host) -> None:
    host.run("mkdir -p /opt/sealed && chmod 700 /opt/sealed")
    text = BASELINE.replace("user www-data;", "user www-data; working_directory /opt/sealed;")
    host.stage(variant=text)
    answer = host.ratchet("confirm", identity(text))
    assert not answer["ok"] and "is live again" in answer["error"]
    assert host.level() == "level 9\n" and host.status()["lease"] is None


def test_confirm_starts_an_nginx_that_was_down(host: Host) -> None:
    host.run("systemctl stop nginx")
    assert not host.status()["nginx"]["running"]
    assert host.ratchet("confirm", VARIANT_ID)["ok"]
    assert host.level() == "level 4\n"


def test_bad_input_is_refused_with_a_sentence(host: Host) -> None:
    for stdin in ("", "[]", "{", '{"configurations": {"../x": "a"}}', '{"configurations": {"a": 1}}', "[" * 100_000):
        answer = host.ratchet("stage", stdin=stdin)
        assert not answer["ok"] and answer["error"] and "internal" not in answer["error"]


def test_a_full_disk_is_said_and_nothing_is_half_done(host: Host) -> None:
    host.run(
        "mount -t tmpfs -o size=4k tmpfs /var/lib/ratchet; dd if=/dev/zero of=/var/lib/ratchet/x 2>/dev/null || true"
    )
    try:
        answer = host.ratchet("confirm", VARIANT_ID)
    finally:
        host.run("umount /var/lib/ratchet")
    assert not answer["ok"] and "No space left on device" in answer["error"]
    assert host.level() == "level 9\n" and host.status()["confirmed"] == host.status()["live"] == BASELINE_ID


def test_a_read_only_etc_is_said_and_nothing_is_half_done(host: Host) -> None:
    session = host.session()
    host.run("mount --bind /etc/nginx /etc/nginx && mount -o remount,bind,ro /etc/nginx")
    try:
        for answer in (host.stage(other=configuration(2)), session.switch(VARIANT_ID)):
            assert not answer["ok"] and "Read-only file system" in answer["error"]
        assert session.ask("end")["verified"] is True
        assert "Read-only file system" in host.ratchet("confirm", VARIANT_ID)["error"]
    finally:
        host.run("umount /etc/nginx")
    status = host.status()
    assert host.level() == "level 9\n" and status["confirmed"] == status["live"] == BASELINE_ID and not status["drift"]


def test_only_ids_and_seconds_are_arguments(host: Host) -> None:
    for arguments in (
        "confirm ../../etc",
        "confirm",
        "switch 'a b'",
        "session --lease 0",
        "session --lease 1e3",
        "nothing",
    ):
        assert host.run(f"ratchet-host {arguments} </dev/null >/dev/null 2>&1; echo $?").strip() == "2"


def test_what_was_done_is_in_the_journal(host: Host) -> None:
    host.ratchet("confirm", VARIANT_ID)
    journal = host.run("journalctl -t ratchet-host --output=json --no-pager -n 5")
    messages = [str(json.loads(line)["MESSAGE"]) for line in journal.splitlines()]
    assert any(f"confirmed {VARIANT_ID}" in message for message in messages)
