"""A run's plays say for which run they speak, at every call that changes a host; a person's say nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Tells what it was called with, and answers as root's program would.
PROGRAM = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/calls"
cat >/dev/null
echo '{"ok": true, "changed": true, "live": "a", "confirmed": "a",
       "configurations": {"baseline": {"id": "a", "ok": true, "diff_from_live": ""}}}'
"""
CALLS = {
    "push.yml": ["stage"],
    "commit.yml": ["stage", "confirm a"],
    "rollback.yml": ["rollback"],
}


def play(folder: Path, playbook: str, **variables: object) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a playbook on this machine, with the recorder in place of root's program; gives the calls too."""
    roles, program = folder / "roles", folder / "ratchet-host"
    if not roles.exists():
        roles.mkdir()
        (roles / "nginx").symlink_to(ROOT / "roles/nginx")
        shutil.copytree(ROOT / "roles/variant", roles / "variant")
        module = roles / "variant/library/ratchet_host.py"
        module.write_text(module.read_text().replace("/usr/local/sbin/ratchet-host", str(program)))
        program.write_text(PROGRAM)
        program.chmod(0o755)
    (folder / "calls").unlink(missing_ok=True)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(roles), "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }  # fmt: skip
    given = {"variant_arms": [{"name": "baseline"}], "ansible_connection": "local", "ansible_become": False} | variables
    done = subprocess.run(
        ["ansible-playbook", "-i", "here,", str(ROOT / "playbooks" / playbook), "-e", json.dumps(given)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return done, calls


@pytest.mark.parametrize("playbook", CALLS)
def test_every_call_of_a_run_carries_its_claim_and_a_person_s_carries_none(playbook: str, tmp_path: Path) -> None:
    done, calls = play(tmp_path, playbook, variant_run="r-20261130-2015-ab12", variant_generation=7)
    assert done.returncode == 0, done.stdout + done.stderr
    claim = "--run r-20261130-2015-ab12 --generation 7"
    named = [(word.split()[0], word.split()[1:]) for word in CALLS[playbook]]
    assert calls == [" ".join([command, claim, *rest]) for command, rest in named]

    done, calls = play(tmp_path, playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    assert calls == CALLS[playbook]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"variant_run": "-r", "variant_generation": 1}, "variant_run"),
        ({"variant_run": "r 1", "variant_generation": 1}, "variant_run"),
        ({"variant_run": "r-1", "variant_generation": "1 --to original"}, "variant_generation"),
        ({"variant_run": "r-1", "variant_generation": True}, "variant_generation"),
    ],
)
def test_what_is_no_claim_is_refused_by_name(variables: dict[str, object], told: str, tmp_path: Path) -> None:
    done, calls = play(tmp_path, "rollback.yml", **variables)
    assert done.returncode != 0 and told in done.stdout
    assert not calls
