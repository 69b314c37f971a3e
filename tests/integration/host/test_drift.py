"""Edits by hand are seen, told with what differs, never lost, and never taken for ours."""

from __future__ import annotations

import pytest

from tests.integration.host.conftest import BASELINE, BASELINE_ID, VARIANT_ID, Host

pytestmark = pytest.mark.lab

LIVE = f"/etc/nginx/ratchet/{BASELINE_ID}/nginx.conf"


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
    assert host.ratchet("rollback")["changed"]
    assert host.status()["drift"] is None and host.run(f"cat {LIVE}") == BASELINE
    assert host.run("grep -l '# mine' /etc/nginx/ratchet/original/edited-*.conf")


def test_confirm_undoes_an_edit_and_tells_where_it_is_kept(host: Host) -> None:
    host.run(f"echo '# mine too' >>{LIVE}; rm /var/lib/ratchet/confirmed.json")
    host.stage(baseline=BASELINE)
    answer = host.ratchet("confirm", BASELINE_ID)
    assert answer["changed"] and "# mine too" in host.run(f"cat {answer['saved']}")
    assert host.run(f"cat {LIVE}") == BASELINE


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
    assert "edited by hand" in host.session().switch(VARIANT_ID)["error"]
