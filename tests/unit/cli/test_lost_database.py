"""A database that is gone for good ends a run, with a sentence; nobody waits for it for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.adapters.files.keys import ensure_fleet_key
from controller.adapters.store import Store
from controller.cli.main import main
from controller.model.project import Project

PROGRAM = """
import sqlite3, sys, types
from dbos import DBOS, DBOSConfiguredInstance
from controller.adapters.store import Store
from controller.cli import main, running
from controller.workflow import engine

database = sys.argv[1]
running.DATABASE_EVERY = 0.2
store = Store(f"sqlite:///{database}")
held = []


@DBOS.dbos_class()
class Flow(DBOSConfiguredInstance):
    @DBOS.workflow(name="flow")
    def run(self, request):
        def lock():
            held.append(sqlite3.connect(database, timeout=5, check_same_thread=False))
            held[0].execute("BEGIN EXCLUSIVE")

        return engine.step("lock", lock, type(None))


def command(_args):
    flow = Flow("flow")
    with engine.launched(f"sqlite:///{database}", "r-1"):
        wait = engine.start(flow.run, "r-1", {})
        return running.in_background(wait, running.DatabaseWatch(store, limit=2).lost)


main.importlib = types.SimpleNamespace(import_module=lambda _: types.SimpleNamespace(run=command, add_arguments=id))
main.main(["runs"])
"""

# A rollback or an end that asks a database which answers nobody any more.
BY_HAND = """
import sqlite3, sys, time
from controller.cli import main, running
from controller.workflow.fleet import rollback
from controller.workflow.run import end

running.DATABASE_EVERY = 0.2
running.DatabaseWatch.__init__.__defaults__ = (2.0,)
database, words = sys.argv[1], sys.argv[2:]
held = []

def wait_for_it(context, *_):
    held.append(sqlite3.connect(database, timeout=5, check_same_thread=False))
    held[0].execute("BEGIN EXCLUSIVE")
    while True:
        time.sleep(1)

rollback.roll_back_to_baseline = end.roll_back_to_baseline = wait_for_it
main.main(words)
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rollback", "end"])
def test_a_database_that_never_answers_again_ends_what_is_done_by_hand(tmp_path: Path, command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    project = Project(tmp_path / "site")
    assert main(["init", str(project.root), "--static"]) == 0
    ensure_fleet_key(project, "web")
    project.known_hosts("web").write_text("")
    hosts = "all: {hosts: {web-1: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n"
    (project.inventory("web") / "hosts.yml").write_text(hosts)
    state = project.state / "ratchet.db"
    store = Store(f"sqlite:///{state}")
    store.record_run(run_id="r-1", fleet="web", status="running", started_at="2026-01-01T00:00:00Z", result="{}")
    words = ["rollback", "--fleet", "web"] if command == "rollback" else ["end", "r-1"]
    done = subprocess.run(
        [sys.executable, "-c", BY_HAND, str(state), "--project", str(project.root), *words],
        capture_output=True, text=True, timeout=180, check=False,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "the database has not answered for" in done.stderr
    assert f"then: controller {' '.join(words)}" in done.stderr


@pytest.mark.slow
def test_a_database_that_never_answers_again_ends_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "state.db")],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 3
    assert "the database has not answered for" in done.stderr and "controller resume" in done.stderr
