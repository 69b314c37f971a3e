"""Playbooks through ansible-runner: what the hosts said, and nothing that leaks from run to run."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.ansible import run_playbook
from controller.adapters.ansible.playbooks import _Collector
from controller.adapters.ansible.strays import (
    CALL_VARIABLE,
    FLEET_VARIABLE,
    has_controller,
    marked,
    new_call,
    remove_left_folders,
)
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


def test_each_host_is_told_apart_and_a_refusal_names_its_host(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="controller.adapters.ansible")
    result = run_playbook(project, "prod", "say.yml", extra_vars={"refusing": "two"})
    assert {host: outcome.status for host, outcome in result.hosts.items()} == {"one": "ok", "two": "failed"}
    with pytest.raises(HostFailed, match="two: no, thanks"):
        result.raise_for_failures()
    told = [re.sub(r"in \d+\.\d s", "in N s", record.getMessage()) for record in caplog.records]
    assert told[0] == "say.yml on fleet prod begins"
    assert {"one: Answer: ok in N s", "two: Refuse: failed in N s: no, thanks"} <= set(told)
    assert "one: Tell the environment: ok, changed in N s" in told
    assert told[-1] == "say.yml on fleet prod: failed, exit 2 in N s: two: no, thanks"


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


def test_a_relative_path_counts_from_the_project_as_it_does_by_hand(project: Project) -> None:
    (project.playbooks / "where.yml").write_text("""
- name: Look
  hosts: one
  gather_facts: false
  tasks:
    - name: Hold where it is against the project
      ansible.builtin.assert: {that: ["'key' | realpath == root ~ '/key'"]}
""")
    run_playbook(project, "prod", "where.yml", extra_vars={"root": str(project.root.resolve())}).raise_for_failures()


@pytest.mark.parametrize("locale", ["C", "xx_XX.ISO-8859-1"])
def test_a_playbook_runs_whatever_the_operators_locale_is(
    project: Project, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    (project.playbooks / "quick.yml").write_text(QUICK)
    run_playbook(project, "prod", "quick.yml").raise_for_failures()


def test_secrets_stay_out_of_ansibles_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "HCLOUD_TOKEN HCLOUD_TOKEN_FILE RATCHET_DATABASE_URL RATCHET_DATABASE_URL_COMMAND PGPASSWORD VAULT_PASSPHRASE"
    )
    for name in (
        *names.split(),
        "GITHUB_PAT",
        "VAULT_AUTH",
        "BEARER",
        "SLACK_WEBHOOK",
        "RESTIC_KEY",
        "DBOS_CONDUCTOR_KEY",
    ):
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("PLANTED", "planted-word")
    run_playbook(project, "prod", "say.yml").raise_for_failures()
    environment = (project.inventory("prod") / "environment").read_text()
    assert "planted-word" in environment
    assert "planted-secret" not in environment


VAULTED = """
- name: Look into the vault
  hosts: one
  gather_facts: false
  tasks:
    - name: Hold it against what was put in
      ansible.builtin.assert: {that: [vaulted == "s3"]}
"""


def test_a_vault_is_opened_by_the_file_that_the_environment_names(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "pw").write_text("x\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(project.root / "pw"))
    command = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt_string", "s3", "--name", "vaulted"]
    locked = subprocess.run(command, capture_output=True, text=True, check=True, cwd=project.root).stdout
    (project.inventory("prod") / "group_vars/all").mkdir(parents=True)
    (project.inventory("prod") / "group_vars/all/secret.yml").write_text(locked)
    (project.playbooks / "vaulted.yml").write_text(VAULTED)
    run_playbook(project, "prod", "vaulted.yml").raise_for_failures()


def test_the_environment_is_not_on_the_disk_while_a_playbook_runs(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("PLANTED", "planted-word")
    seen: list[str] = []

    def look(_: str) -> None:
        for file in (tmp_path / "tmp").rglob("*"):
            seen.append(file.name)
            assert not file.is_file() or "planted-word" not in file.read_text(errors="replace"), file

    (project.playbooks / "quick.yml").write_text(QUICK)
    run_playbook(project, "prod", "quick.yml", on_task=look).raise_for_failures()
    assert "artifacts" in seen


def test_a_playbook_that_finds_no_room_here_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(HostFailed, match=r"say\.yml cannot be run here: No such file") as caught:
        run_playbook(project, "prod", "say.yml")
    assert "TMPDIR" in caught.value.next_step
    monkeypatch.setattr(tempfile, "tempdir", None)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(HostFailed, match="No space left on device"):
        run_playbook(project, "prod", "say.yml", extra_vars={"word": "x"})


@pytest.mark.parametrize("said", [["a"], "text", {"msg": 'unknown directive "\udcff\0"', "diff": "text"}])
def test_a_task_may_say_anything(said: object) -> None:
    collector = _Collector(None)
    collector({"event": "runner_on_failed", "event_data": {"host": "one", "res": said}})
    assert collector.hosts["one"].message.encode().isascii()
    assert collector.hosts["one"].diffs == []


def test_a_cancelled_playbook_ends_early_and_leaves_no_process(project: Project) -> None:
    cancel = threading.Event()
    threading.Timer(3, cancel.set).start()
    started = time.monotonic()
    result = run_playbook(project, "prod", "say.yml", extra_vars={"wait": 60}, cancel=cancel)
    assert result.rc != 0
    assert time.monotonic() - started < 30
    assert _of_fleet(project) == []


def _of_fleet(project: Project) -> list[int]:
    """Everything that works on the fleet `prod`."""
    return marked(lambda marks: marks[FLEET_VARIABLE] == f"{project.root}:prod")


# A controller of its own, at work until the file `go` is there.
CONTROLLER = """
import sys
from pathlib import Path
from controller.adapters.ansible import run_playbook
from controller.model.project import Project
print(run_playbook(Project(Path(sys.argv[1])), "prod", "work.yml").rc)
"""
WORK = """
- name: Work
  hosts: one
  gather_facts: false
  tasks:
    - name: Work for long
      ansible.builtin.shell: "touch at-work; while ! [ -e go ]; do sleep 0.1; done"
      args: {chdir: "{{ inventory_dir }}"}
"""
QUICK = """
- name: Say
  hosts: one
  gather_facts: false
  tasks:
    - name: Say
      ansible.builtin.debug: {msg: nothing}
"""


@pytest.fixture
def at_work(project: Project) -> Iterator[subprocess.Popen[str]]:
    """Another controller, whose playbook has begun to work on the fleet; `quick.yml` is there too."""
    (project.playbooks / "work.yml").write_text(WORK)
    (project.playbooks / "quick.yml").write_text(QUICK)
    words = [sys.executable, "-c", CONTROLLER, str(project.root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as controller:
        try:
            deadline = time.monotonic() + 120
            while not (project.inventory("prod") / "at-work").is_file():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield controller
        finally:
            controller.kill()
            for pid in _of_fleet(project):
                os.kill(pid, signal.SIGKILL)


def test_neither_a_dry_run_nor_another_run_ends_the_playbook_of_a_living_controller(
    project: Project, at_work: subprocess.Popen[str]
) -> None:
    before = _of_fleet(project)
    run_playbook(project, "prod", "work.yml", check=True).raise_for_failures()
    run_playbook(project, "prod", "quick.yml").raise_for_failures()
    assert len(before) >= 2
    (project.inventory("prod") / "go").touch()
    out, _ = at_work.communicate(timeout=120)
    assert out.strip() == "0"


def test_who_holds_the_fleet_ends_what_a_killed_controller_left_whatever_it_ran_and_a_dry_run_does_not(
    project: Project, at_work: subprocess.Popen[str]
) -> None:
    # Dead, and not yet buried by its parent. What has no terminal of the controller's goes on.
    at_work.kill()
    time.sleep(1)
    left = _of_fleet(project)
    assert left
    run_playbook(project, "prod", "work.yml", check=True).raise_for_failures()
    assert set(left) & set(_of_fleet(project))
    run_playbook(project, "prod", "quick.yml").raise_for_failures()
    assert _of_fleet(project) == []


def test_a_playbook_whose_controller_is_interrupted_ends_with_it(
    project: Project, at_work: subprocess.Popen[str]
) -> None:
    at_work.send_signal(signal.SIGINT)
    at_work.communicate(timeout=60)
    assert _of_fleet(project) == []


def test_a_call_has_its_controller_as_long_as_that_very_process_lives() -> None:
    call = new_call()
    pid, started, namespace, _ = call.split("-")
    assert pid == str(os.getpid()), "controllers of earlier versions look there"
    assert new_call() != call
    assert has_controller(call)
    assert not has_controller(f"{pid}-{int(started) - 1}-{namespace}-1"), "the same number, another process"
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    assert not has_controller(f"{gone.pid}-{started}-{namespace}-1")
    # Of another container's processes nothing is known here.
    assert has_controller(f"{gone.pid}-{started}-{int(namespace) + 1}-1")


def test_a_missing_playbook_is_bad_input(project: Project) -> None:
    with pytest.raises(BadInput, match=r"no playbook nothing\.yml"):
        run_playbook(project, "prod", "nothing.yml")


def test_leftovers_that_do_not_heed_a_term_are_killed_and_those_of_other_fleets_are_not_touched(
    project: Project,
) -> None:
    _, started, namespace, _ = new_call().split("-")
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()

    def sleeper(fleet: str) -> subprocess.Popen[bytes]:
        program = (
            "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
        )
        marks = {FLEET_VARIABLE: f"{project.root}:{fleet}", CALL_VARIABLE: f"{gone.pid}-{started}-{namespace}-1"}
        child = subprocess.Popen([sys.executable, "-c", program], env=os.environ | marks, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        return child

    mine, other = sleeper("prod"), sleeper("test")
    try:
        run_playbook(project, "prod", "say.yml").raise_for_failures()
        assert mine.wait(timeout=5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for child in (mine, other):
            child.kill()
            child.communicate()


def test_folders_of_controllers_that_are_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    _, started, namespace, _ = new_call().split("-")
    left = f"ratchet-ansible-{gone.pid}-{started}-{namespace}-1-left"
    names = [left, f"ratchet-ansible-{new_call()}-mine", "ratchet-ansible-notes-x"]
    for name in names:
        (tmp_path / name / "env").mkdir(parents=True)
    remove_left_folders()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
