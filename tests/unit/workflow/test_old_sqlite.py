"""A workflow on SQLite before 3.42, whose `unixepoch('subsec')` is NULL: DBOS asks for it from Python 3.12 on.

It is the process's SQLite that is made old, and DBOS that is made to believe in Python 3.12, so that every Python with
every SQLite runs the case.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OLD_SQLITE = """
import sqlite3

class Old(sqlite3.Connection):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        {lack}

def connect(*args, factory=sqlite3.Connection, **kwargs):
    made = Old if factory is sqlite3.Connection else type("Connection", (factory, Old), {{}})
    return real(*args, factory=made, **kwargs)

real, sqlite3.connect, sqlite3.dbapi2.connect = sqlite3.connect, connect, connect
"""
# Before 3.42 the modifier is unknown, before 3.38 the function: calling None is the same kind of error.
LACKS = {
    "3.40": 'self.create_function("unixepoch", 1, lambda _modifier: None)',
    "3.37": 'self.create_function("unixepoch", -1, None)',
}
NEW_PYTHON = """
import importlib, sys, types
from unittest import mock
import dbos
from dbos import _migration, _sys_db, _sys_db_sqlite

with mock.patch.object(sys, "version_info", (3, 12)):
    importlib.reload(_migration)
_sys_db_sqlite.sqlite_migrations = _migration.sqlite_migrations
_sys_db.sys = mock.Mock(wraps=sys, version_info=(3, 12))
"""
RUN = """
from dbos import DBOS, DBOSConfiguredInstance
from controller.workflow import engine

@DBOS.dbos_class()
class Flow(DBOSConfiguredInstance):
    @DBOS.workflow(name="flow")
    def run(self, request):
        return engine.step("work", lambda: request["asked"] + " is done", str)

flow = Flow("flow")
with engine.launched(sys.argv[1], "r-1"):
    print(engine.start(flow.run, "r-1", {"asked": "this"})())
"""
NULL = """
import sqlite3
print(sqlite3.connect(":memory:").execute("SELECT unixepoch('subsec')").fetchone())
"""


def _run(program: str, database: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, database], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_the_sqlite_of_these_tests_is_old() -> None:
    old, older = (_run(OLD_SQLITE.format(lack=lack) + NULL, "") for lack in LACKS.values())
    assert old.stdout == "(None,)\n"
    assert "OperationalError" in older.stderr


@pytest.mark.parametrize("lack", LACKS)
def test_a_workflow_runs_on_an_old_sqlite_under_a_new_python(lack: str, tmp_path: Path) -> None:
    old = OLD_SQLITE.format(lack=LACKS[lack])
    done = _run(old + NEW_PYTHON + RUN, f"sqlite:///{tmp_path}/state.db")
    assert done.stdout == "this is done\n", done.stderr[-2000:]


def test_a_database_of_a_new_python_is_read_and_written_under_an_older_one(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/state.db"
    old = OLD_SQLITE.format(lack=LACKS["3.40"])
    assert _run(old + NEW_PYTHON + RUN, database).stdout == "this is done\n"
    again = _run("import sys\n" + old + RUN.replace("r-1", "r-2"), database)
    assert again.stdout == "this is done\n", again.stderr[-2000:]
