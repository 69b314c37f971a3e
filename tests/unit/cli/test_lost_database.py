"""A database that is gone for good ends a run, with a sentence; nobody waits for it for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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

        return engine.step("lock", lock)


def command(_args):
    flow = Flow("flow")
    with engine.launched(f"sqlite:///{database}", "r-1"):
        wait = engine.start(flow.run, "r-1", {})
        return running.in_background(wait, running.DatabaseWatch(store, limit=2).lost)


main.importlib = types.SimpleNamespace(import_module=lambda _: types.SimpleNamespace(run=command, add_arguments=id))
main.main(["runs"])
"""


@pytest.mark.slow
def test_a_database_that_never_answers_again_ends_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "state.db")],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 3
    assert "the database has not answered for" in done.stderr and "controller resume" in done.stderr
