"""Whoever calls root's program, with whatever settings of its own."""

from __future__ import annotations

import json

import pytest

from tests.integration.host.conftest import BASELINE_ID, PROGRAM, VARIANT_ID, Host

pytestmark = pytest.mark.lab

SPOILED = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("sudo", ["", "/usr/bin/sudo -n"])
def test_a_caller_that_ignores_its_children_gets_no_broken_configuration_staged(host: Host, sudo: str) -> None:
    host.put("/root/spoiled.py", SPOILED)
    broken = json.dumps({"configurations": {"broken": "events { nonsense; }"}})
    told = host.run(f"python3 /root/spoiled.py {sudo} {PROGRAM} stage", stdin=broken, check=False)
    assert 'unknown directive \\"nonsense\\"' in told and json.loads(told)["ok"] is False


def test_a_session_hears_its_signals_and_goes_back_also_where_its_caller_had_blocked_them(host: Host) -> None:
    host.put("/root/spoiled.py", SPOILED)
    host.run(
        f'(sleep 0.2; echo \'{{"command":"switch","configuration":"{VARIANT_ID}"}}\'; sleep 8)'
        f" | python3 /root/spoiled.py {PROGRAM} session --lease 60 >/tmp/told 2>&1 & sleep 2;"
        f" pkill -TERM -f '^/usr/bin/python3 -IS {PROGRAM} session'"
    )
    host.until(lambda: host.status()["live"] == BASELINE_ID and host.status()["lease"] is None, 4)


def test_a_limit_of_a_caller_that_would_break_a_change_is_refused_before_it(host: Host) -> None:
    told = json.loads(host.run(f"ulimit -f 1; {PROGRAM} confirm {VARIANT_ID}", check=False))
    assert "the size of files (ulimit -f)" in told["error"]
    assert host.status()["confirmed"] == host.status()["live"] == BASELINE_ID
