"""Playbooks through ansible-runner: what the hosts said, and nothing that leaks from run to run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from controller.adapters.ansible import run_playbook
from controller.adapters.ansible.strays import TAG_VARIABLE, end_strays, remove_left_folders, tagged
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project

INVENTORY = """
all:
  hosts: {one: {}, two: {}}
  vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
"""
PLAYBOOK = """
- name: Say
  hosts: all
  gather_facts: false
  tasks:
    - name: Answer
      ansible.builtin.set_fact:
        ratchet: {said: "{{ word | default('nothing') }}"}
    - name: Refuse
      ansible.builtin.fail:
        msg: "no, thanks"
      when: refusing | default('') == inventory_hostname
    - name: Tell the environment
      ansible.builtin.copy:
        content: "{{ lookup('ansible.builtin.pipe', 'env') }}"
        dest: "{{ inventory_dir }}/environment"
        mode: "0600"
      delegate_to: one
    - name: Wait
      ansible.builtin.pause: {seconds: "{{ wait | default(0) }}"}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    for folder in ("inventory/prod", "playbooks", "roles"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "inventory/prod/hosts.yml").write_text(INVENTORY)
    (tmp_path / "playbooks/say.yml").write_text(PLAYBOOK)
    return Project(tmp_path)


def test_each_host_is_told_apart_and_a_refusal_names_its_host(project: Project) -> None:
    result = run_playbook(project, "prod", "say.yml", extra_vars={"refusing": "two"})
    assert {host: outcome.status for host, outcome in result.hosts.items()} == {"one": "ok", "two": "failed"}
    with pytest.raises(HostFailed, match="two: no, thanks"):
        result.raise_for_failures()


def test_extra_vars_may_be_longer_than_an_argument_and_are_what_they_were_given_as(project: Project) -> None:
    given = {"texts": ["x" * 100_000, "y" * 100_000], "word": "über 'quoted' \"words\"", "count": 3, "on": True}
    (project.playbooks / "long.yml").write_text("""
- name: Look
  hosts: one
  gather_facts: false
  tasks:
    - name: Hold it against what was given
      ansible.builtin.assert:
        that: [texts | map('length') | sum == 200000, count + 1 == 4, on is true, word == "über 'quoted' \\"words\\""]
""")
    run_playbook(project, "prod", "long.yml", extra_vars=given).raise_for_failures()


def test_secrets_stay_out_of_ansibles_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HCLOUD_TOKEN",
        "RATCHET_DATABASE_URL",
        "RATCHET_DATABASE_URL_COMMAND",
        "PGPASSWORD",
        "VAULT_PASSPHRASE",
    ):
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("PLANTED", "planted-word")
    run_playbook(project, "prod", "say.yml").raise_for_failures()
    environment = (project.inventory("prod") / "environment").read_text()
    assert "planted-word" in environment
    assert "planted-secret" not in environment


def test_a_cancelled_playbook_ends_early_and_leaves_no_process(project: Project) -> None:
    cancel = threading.Event()
    threading.Timer(3, cancel.set).start()
    started = time.monotonic()
    result = run_playbook(project, "prod", "say.yml", extra_vars={"wait": 60}, cancel=cancel)
    assert result.rc != 0
    assert time.monotonic() - started < 30
    assert tagged(f"{project.root}:prod:say.yml") == []


def test_a_missing_playbook_is_bad_input(project: Project) -> None:
    with pytest.raises(BadInput, match=r"no playbook nothing\.yml"):
        run_playbook(project, "prod", "nothing.yml")


def test_strays_of_the_same_tag_are_ended_and_others_are_not() -> None:
    def sleeper(tag: str) -> subprocess.Popen[bytes]:
        program = (
            "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", program], env=os.environ | {TAG_VARIABLE: tag}, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        return child

    mine, other = sleeper("a:prod"), sleeper("b:prod")
    try:
        assert end_strays("a:prod", grace=0.3) == 1
        assert mine.wait(timeout=5) < 0
        assert other.poll() is None
    finally:
        for child in (mine, other):
            child.kill()
            child.wait()


def test_folders_of_controllers_that_are_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    names = [f"ratchet-ansible-{gone.pid}-left", f"ratchet-ansible-{os.getpid()}-mine", "ratchet-ansible-notes-x"]
    for name in names:
        (tmp_path / name / "env").mkdir(parents=True)
    remove_left_folders()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
