"""Other processes of the host, and what a caller's environment brings along: neither ends the way back."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.host.conftest import BASELINE, BASELINE_ID, PROGRAM, VARIANT, VARIANT_ID, Host, configuration
from tests.integration.host.way_back import assert_back, live_by_hand, start_over

pytestmark = pytest.mark.lab

# As the shadow's own account: folders deeper than any recursion, wherever it may write.
DEEP = """
import os, subprocess, sys
pids = subprocess.run(["systemctl", "show", "ratchet-shadow-a", "--property=MainPID", "--value"],
                      capture_output=True, text=True).stdout.split()
worker = open(f"/proc/{pids[0]}/task/{pids[0]}/children").read().split()[0]
owner = os.stat(f"/proc/{worker}").st_uid
places = [here for here, _, _ in os.walk("/var/lib/ratchet/shadow-a") if os.stat(here).st_uid == owner]
# It keeps a foot in the folder, as a process does that makes files all the while.
os.chdir(places[-1])
os.setuid(owner)
for _ in range(1500):
    os.mkdir("d")
    os.chdir("d")
print(places[-1])
"""
IGNORING = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_folders_too_deep_to_be_removed_hold_nothing_up(host: Host) -> None:
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    try:
        assert "/var/lib/ratchet/shadow-a" in host.run("python3 -", stdin=DEEP)
        assert session.ask("end").get("verified")
        began = live_by_hand(host)
        assert_back(host, began)
        assert host.ratchet("rollback")["ok"]
        # Another duet takes no harm either.
        other = host.session(design="duet")
        assert other.ready["ok"] and other.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
        assert other.ask("end")["verified"]
    finally:
        host.run("rm -rf /var/lib/ratchet/shadow-*")


def test_a_caller_that_ignores_sigchld_makes_no_broken_configuration_good(host: Host) -> None:
    bad = json.dumps({"configurations": {"bad": configuration(3, "bogus on;")}, "keep": 5})
    answer = json.loads(host.run(f"python3 -c '{IGNORING}' {PROGRAM} stage || true", stdin=bad))
    assert not answer["ok"] and "bogus" in answer["error"]
    session = json.loads(host.run(f"python3 -c '{IGNORING}' sudo -n {PROGRAM} switch {VARIANT_ID} --lease 5"))
    assert session["ok"] and host.level() == "level 4\n"


def test_what_other_accounts_may_not_read_they_may_not_read_in_any_copy_of_it(host: Host) -> None:
    start_over(host)
    host.run("chgrp adm /etc/nginx/nginx.conf; chmod 640 /etc/nginx/nginx.conf")
    try:
        assert host.stage(baseline=BASELINE, variant=VARIANT)["ok"] and host.ratchet("confirm", BASELINE_ID)["ok"]
        # An edit that is kept, and what is made anew in its place; and somebody's own file over our link.
        host.run("echo '# by hand' >>/etc/nginx/nginx.conf")
        assert host.ratchet("rollback")["saved"]
        host.run("sed -i '$a # another' /etc/nginx/nginx.conf")
        assert host.ratchet("rollback")["saved"]
        live_by_hand(host)
        assert host.stage(another=configuration(3))["ok"]
        found = host.run("find /etc/nginx/ratchet -type f -printf '%m %g\\n'").splitlines()
        assert len(found) == 6 and set(found) == {"640 adm"}, host.run("find /etc/nginx/ratchet -type f -ls")
    finally:
        host.run("chgrp root /etc/nginx/ratchet/original/nginx.conf; chmod 644 /etc/nginx/ratchet/original/nginx.conf")
        start_over(host)


def test_who_asks_for_the_status_is_no_session(host: Host) -> None:
    asking = "for i in $(seq 25); do ratchet-host status; done"
    with ThreadPoolExecutor() as pool:
        told = [pool.submit(host.run, asking) for _ in range(4)]
        documents = [json.loads(line) for lines in told for line in lines.result().splitlines()]
    assert len(documents) == 100 and not [document for document in documents if document["lease"]]
