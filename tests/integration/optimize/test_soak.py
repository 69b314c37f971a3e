"""Harm that takes time, and that only the live instance shows, is found in the soak, before anything is committed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.operators_fleet import WORKLOAD, FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.measures, pytest.mark.timeout(900)]

# A module that keeps 40 kB of every answer, but only while the live configuration holds the variant's directive.
LEAK = r"""
server {
    listen 8090;
    root /var/www/ratchet-demo;
    location = /leak {
        perl 'sub {
            my $r = shift;
            our ($leaky, @kept);
            unless (defined $leaky) {
                open(my $file, "<", "/etc/nginx/nginx.conf");
                local $/;
                $leaky = <$file> =~ /gzip_comp_level 4;/ ? 1 : 0;
            }
            push @kept, "x" x 40000 if $leaky;
            $r->send_http_header("text/plain");
            $r->print("ok");
            return OK;
        }';
    }
}
"""


def commit(fleet: FleetUnderTest) -> None:
    """What an operator does after a change by hand."""
    playbook = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [playbook, "-i", f"inventory/{fleet.name}", "playbooks/commit.yml"],
        cwd=fleet.project,
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def leaky(newer: FleetUnderTest) -> FleetUnderTest:
    (host,) = newer.live()
    installed = newer.ssh(
        host,
        "sudo apt-get -qq update && sudo DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "
        "--no-install-recommends libnginx-mod-http-perl",
    )
    assert installed.returncode == 0, installed.stderr
    written = newer.ssh(host, f"sudo tee /etc/nginx/sites-enabled/leak.conf >/dev/null <<'CONF'\n{LEAK}\nCONF")
    assert written.returncode == 0, written.stderr
    commit(newer)
    return newer


def test_a_leak_that_only_shows_live_is_found_in_the_soak_and_reverted(leaky: FleetUnderTest) -> None:
    before = leaky.live()
    requests = [WORKLOAD["requests"][0] | {"weight": 3}, {"path": "/leak", "weight": 2}]
    leaky.write_experiment(
        "leak", {"level-4": {"nginx_gzip_comp_level": 4}}, workload={"rate": 30, "port": 8090, "requests": requests}
    )
    run = leaky.optimize("leak")
    (trial,) = run["trials"]
    assert (trial["verdict"], trial["reason"]) == ("REVERT", "soak-memory"), json.dumps(trial, indent=1)
    assert trial["live"]["passed"]
    assert "rises all the time" in trial["note"]
    assert leaky.live() == before
    verified = leaky.controller("verify", run["run_id"], "--output", "json")
    assert verified.returncode == 0, verified.stdout
    shown = leaky.controller("show", run["run_id"]).stdout
    assert "grew beyond measure while it was watched live" in " ".join(shown.split())
