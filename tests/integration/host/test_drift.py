"""Edits by hand are seen, told with what differs, never lost, and never taken for ours."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.integration.host.conftest import (
    BASELINE,
    BASELINE_ID,
    VARIANT,
    VARIANT_ID,
    Host,
    configuration,
    identity,
    without_mark,
)

pytestmark = pytest.mark.lab

LIVE = f"/etc/nginx/ratchet/{BASELINE_ID}/nginx.conf"


def text(host: Host) -> str:
    """The baseline's file, without its mark."""
    return without_mark(host.run(f"cat {LIVE}"))


def test_an_unedited_host_has_no_drift_and_a_stable_fingerprint(host: Host) -> None:
    first, second = host.status(), host.status()
    assert first["drift"] is None and first["fingerprint"] == second["fingerprint"]
    host.ratchet("confirm", VARIANT_ID)
    assert host.status()["fingerprint"] != first["fingerprint"]


def test_an_edit_of_the_live_file_is_told_with_its_diff_and_blocks_sessions(host: Host) -> None:
    host.run("sed -i --follow-symlinks 's/worker_connections 512/worker_connections 999/' /etc/nginx/nginx.conf")
    told = host.status()["drift"][f"ratchet/{BASELINE_ID}/nginx.conf"]
    assert "-events { worker_connections 512; }" in told and "+events { worker_connections 999; }" in told
    refused = host.session().ready
    assert not refused["ok"] and "edited by hand" in refused["error"]
    assert host.stage(baseline=BASELINE)["drift"] and "999" in host.run(f"cat {LIVE}")


def test_rollback_undoes_an_edit_and_keeps_a_copy(host: Host) -> None:
    host.run(f"echo '# mine' >>{LIVE}")
    answer = host.ratchet("rollback")
    assert answer["changed"]
    assert host.status()["drift"] is None and text(host) == BASELINE
    assert host.run(f"cat {answer['saved'][0]}") == BASELINE + "# mine\n"


def test_confirm_undoes_an_edit_and_tells_where_it_is_kept(host: Host) -> None:
    host.run(f"echo '# mine too' >>{LIVE}; rm /var/lib/ratchet/confirmed-*.json")
    host.stage(baseline=BASELINE)
    answer = host.ratchet("confirm", BASELINE_ID)
    assert answer["changed"] and "# mine too" in host.run(f"cat {answer['saved'][0]}")
    assert "was edited" in answer["adopted"][f"ratchet/{BASELINE_ID}/nginx.conf"]
    assert text(host) == BASELINE


def test_a_replaced_link_is_noticed_and_put_back(host: Host) -> None:
    host.run("cd /etc/nginx && cp --remove-destination ratchet/live/nginx.conf nginx.conf && echo '# own' >>nginx.conf")
    assert "nginx.conf" in host.status()["drift"]
    assert host.ratchet("rollback")["changed"]
    assert host.status()["drift"] is None
    assert host.run("grep -l '# own' /etc/nginx/ratchet/original/edited-*.conf")


def test_edits_of_included_files_are_drift_until_the_next_confirm(host: Host) -> None:
    host.put("/etc/nginx/sites-enabled/shop", "server { listen 8095; return 200 one; }\n")
    assert host.status()["drift"] == {"/etc/nginx/sites-enabled/shop": "was added"}
    assert host.ratchet("confirm", BASELINE_ID)["drift"] is None
    assert host.get(8095) == (200, "one")
    host.run("sed -i s/one/two/ /etc/nginx/sites-enabled/shop")
    assert "+server { listen 8095; return 200 two; }" in host.status()["drift"]["/etc/nginx/sites-enabled/shop"]
    host.run("rm /etc/nginx/sites-enabled/shop")
    assert host.status()["drift"] == {"/etc/nginx/sites-enabled/shop": "was removed"}
    assert host.ratchet("confirm", BASELINE_ID)["drift"] is None


def test_an_edited_variant_is_not_switched_to(host: Host) -> None:
    host.run(f"echo '# x' >>/etc/nginx/ratchet/{VARIANT_ID}/nginx.conf")
    assert "edited by hand" in host.ratchet("confirm", VARIANT_ID)["error"]
    refused = host.session().ready["error"]
    assert "edited by hand" in refused and VARIANT_ID in refused


# --- edits while a trial runs -----------------------------------------------------------------------------------------


def kept(host: Host) -> str:
    """What the host tells of the one edited file that it has kept."""
    drift = host.status()["drift"]
    assert len(drift) == 1, drift
    (told,) = drift.values()
    assert "is kept as /etc/nginx/" in told
    return without_mark(host.run("cat " + told.split("is kept as ")[1].split(":")[0]))


@pytest.mark.parametrize("edit", ["sed -i --follow-symlinks", "sed -i"])
def test_an_edit_of_the_main_file_under_a_variant_is_kept_and_told_until_somebody_answers(
    host: Host, edit: str
) -> None:
    session = host.session()
    assert session.switch(VARIANT_ID)["ok"]
    host.run(f"{edit} 's/worker_connections 512/worker_connections 777/' /etc/nginx/nginx.conf")
    assert session.ask("end")["verified"]
    assert host.status()["live"] == BASELINE_ID and "level 9" in host.level()
    assert kept(host) == VARIANT.replace("worker_connections 512", "worker_connections 777")
    # Nothing goes on over it.
    assert "edited by hand" in host.session().ready["error"]
    host.stage(baseline=BASELINE, variant=VARIANT)
    assert "777" in kept(host)
    answer = host.ratchet("confirm", BASELINE_ID)
    assert "777" in host.run(f"cat {answer['saved'][0]}") and host.status()["drift"] is None


def test_a_session_switches_nothing_once_the_link_was_replaced(host: Host) -> None:
    session = host.session()
    assert session.switch(VARIANT_ID)["ok"]
    host.run("sed -i s/512/513/ /etc/nginx/nginx.conf")
    assert "was replaced by hand" in session.switch(BASELINE_ID)["error"]
    assert session.ask("end")["verified"] and "level 9" in host.level()
    assert host.ratchet("rollback")["saved"]


def test_an_edit_of_the_baseline_under_a_variant_is_kept_when_the_lease_runs_out(host: Host) -> None:
    session = host.session(lease=5)
    assert session.switch(VARIANT_ID)["ok"]
    host.run(f"echo '# late' >>{LIVE}; pkill -KILL -f 'ratchet-host session'")
    host.until(lambda: host.status()["live"] == BASELINE_ID and host.status()["lease"] is None, 15)
    # The edit is somebody's: it is told, and stays until somebody answers.
    assert "+# late" in str(host.status()["drift"]) and text(host) == BASELINE + "# late\n"
    (saved,) = host.ratchet("rollback")["saved"]
    assert host.run(f"cat {saved}") == BASELINE + "# late\n" and host.status()["drift"] is None


def test_an_edit_of_an_included_file_in_mid_trial_stays_in_place_and_is_told(host: Host) -> None:
    session = host.session()
    assert session.switch(VARIANT_ID)["ok"]
    host.put("/etc/nginx/sites-enabled/shop", "server { listen 8095; return 200 mine; }\n")
    assert session.ask("end")["verified"]
    assert host.status()["drift"] == {"/etc/nginx/sites-enabled/shop": "was added"}
    assert host.run("cat /etc/nginx/sites-enabled/shop") == "server { listen 8095; return 200 mine; }\n"
    host.run("rm /etc/nginx/sites-enabled/shop")
    host.ratchet("confirm", BASELINE_ID)


def test_an_edited_variant_s_text_is_kept_when_it_is_pushed_again(host: Host) -> None:
    host.run(f"echo '# try' >>/etc/nginx/ratchet/{VARIANT_ID}/nginx.conf")
    assert host.stage(baseline=BASELINE, variant=VARIANT)["ok"]
    assert kept(host) == VARIANT + "# try\n"
    assert host.ratchet("rollback")["saved"] and host.status()["drift"] is None


def test_who_asks_for_it_confirms_nothing_that_was_edited_meanwhile(host: Host) -> None:
    site = "/etc/nginx/sites-enabled/edited.conf"
    assert host.ratchet("switch", VARIANT_ID, "--lease", "30")["ok"]
    host.put(site, "# by hand\n")
    try:
        refused = host.ratchet("confirm", VARIANT_ID, "--unedited")
        assert not refused["ok"] and f"edited by hand since the last confirm: {site}" in refused["error"]
        status = host.status()
        assert (status["live"], status["confirmed"]) == (VARIANT_ID, BASELINE_ID)
    finally:
        host.run(f"rm {site}")
    confirmed = host.ratchet("confirm", VARIANT_ID, "--unedited")
    assert confirmed["ok"] and confirmed["confirmed"] == VARIANT_ID


OWN = BASELINE.replace('"level 9', '"level by hand')


def deploy(host: Host) -> None:
    """As other tools do: a file of the operator's own in the link's place, and a reload."""
    host.put("/etc/nginx/own.conf", OWN)
    host.run("mv /etc/nginx/own.conf /etc/nginx/nginx.conf; systemctl reload nginx")
    host.until(lambda: host.level() == "level by hand\n", 5)


def test_a_deploy_in_mid_trial_stays_when_the_session_ends_and_is_told(host: Host) -> None:
    session = host.session()
    assert session.switch(VARIANT_ID)["ok"]
    deploy(host)
    answer = session.ask("end")
    assert not answer["verified"] and "replaced by hand" in answer["error"]
    assert host.level() == "level by hand\n" and host.run("cat /etc/nginx/nginx.conf") == OWN
    assert "nginx.conf" in host.status()["drift"]
    # Who asks for the baseline gets it, and the file is kept.
    answer = host.ratchet("rollback")
    assert answer["verified"] and host.run(f"cat {answer['saved'][0]}") == OWN


def test_a_deploy_while_a_switch_waits_for_old_workers_is_not_lost(host: Host) -> None:
    patient = {level: configuration(level).replace("timeout 3s;", "timeout 90s;") for level in (9, 4)}
    host.stage(a=patient[9], b=patient[4])
    assert host.ratchet("confirm", identity(patient[9]))["ok"]
    session = host.session()
    with socket.create_connection((host.address, 8090), timeout=5) as client:
        # Its worker stays as long as it has not asked to the end, and so the switch is taken back.
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.3)
        session.write(json.dumps({"command": "switch", "configuration": identity(patient[4])}).encode() + b"\n")
        host.until(lambda: host.level() == "level 4\n", 5)
        deploy(host)
        refused = session.read()
    assert not refused["ok"] and "replaced by hand" in refused["error"]
    assert not session.ask("end")["verified"]
    assert host.run("cat /etc/nginx/nginx.conf") == OWN and host.level() == "level by hand\n"
    assert host.ratchet("rollback")["saved"]
