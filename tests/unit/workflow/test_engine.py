"""Durable steps: recorded once, errors and all, across a killed process."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from controller.model.errors import HostFailed, Unexpected, unexpected
from controller.workflow import engine

PROGRAM = """
import json, os, sys
from pathlib import Path
from dbos import DBOS, DBOSConfiguredInstance
from controller.adapters.ssh.failures import ConnectionBroken
from controller.model.errors import HostFailed
from controller.workflow import engine

folder = Path(sys.argv[1])


def count(name):
    with (folder / name).open("a") as file:
        file.write("x")
    return (folder / name).stat().st_size


@DBOS.dbos_class()
class Flow(DBOSConfiguredInstance):
    @DBOS.workflow(name="flow")
    def run(self, request):
        first = engine.step("first", lambda: count("first"), int)
        try:
            engine.step("fails", self.fail, int)
        except HostFailed as error:
            failed = [error.what, error.where, error.next_step]
        second = engine.step("second", self.second, int)
        return {"first": first, "failed": failed, "second": second}

    def fail(self):
        count("fails")
        # A case of HostFailed that only its adapter knows.
        raise ConnectionBroken("it broke", where="web-1", next_step="mend it")

    def second(self):
        times = count("second")
        if times == 1 and sys.argv[2] == "die":
            os.kill(os.getpid(), 9)
        if sys.argv[2] == "corrupt":
            for file in folder.glob("state.db*"):
                file.write_bytes(b"this was a database once" * 400)
        return times


flow = Flow("flow")
try:
    with engine.launched(sys.argv[3], "r-1"):
        print(json.dumps(engine.start(flow.run, "r-1", {})()))
except HostFailed as error:
    print(json.dumps([error.what, error.next_step]))
"""


def start(folder: Path, database: str, *, die: bool = False, how: str = "live") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), "die" if die else how, database],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_killed_workflow_goes_on_at_the_step_that_was_under_way(tmp_path: Path, database: str) -> None:
    assert start(tmp_path, database, die=True).returncode == -signal.SIGKILL
    finished = start(tmp_path, database, die=False)
    assert json.loads(finished.stdout) == {"first": 1, "failed": ["it broke", "web-1", "mend it"], "second": 2}
    # Recorded steps, the failed one too, were not carried out again.
    assert [(tmp_path / name).read_text() for name in ("first", "fails", "second")] == ["x", "x", "xx"]


def test_a_finished_workflow_is_only_read_again(tmp_path: Path, database: str) -> None:
    first, again = start(tmp_path, database, die=False), start(tmp_path, database, die=False)
    assert first.stdout == again.stdout != ""
    # DBOS and we log to where the program says, and nowhere by ourselves.
    assert first.stderr == again.stderr == ""
    assert (tmp_path / "second").read_text() == "x"


def test_a_fault_of_ours_that_a_step_has_caught_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.DBOS, "run_step", lambda _options, function: function())

    def caught() -> int:
        try:
            return int("x")
        except ValueError as error:
            raise unexpected(error, "web-1") from None

    with pytest.raises(Unexpected) as told:
        engine.step("work", caught, int)
    assert "in caught" in told.value.traceback


def test_a_step_is_logged_from_its_beginning_to_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="controller.workflow")
    monkeypatch.setattr(engine.DBOS, "run_step", lambda _options, function: function())
    assert engine.step("first", lambda: 7, int) == 7
    with pytest.raises(Unexpected):
        engine.step("second", lambda: int("x"), int)
    told = [re.sub(r"\d+\.\d s", "N s", record.getMessage()) for record in caplog.records]
    assert told == [
        "step first begins",
        "step first ended in N s",
        "step second begins",
        "a fault of Ratchet's own in second",
        "step second failed after N s: Unexpected: a fault of Ratchet's own: ValueError: invalid literal for "
        "int() with base 10: 'x'",
    ]
    assert caplog.records[3].exc_info is not None


def test_steps_that_nobody_needs_any_more_are_deleted_and_only_those(tmp_path: Path, database: str) -> None:
    assert engine.recorded_workflows(database) == []
    engine.forget_workflows(database, ["r-0"])
    for run in ("r-1", "r-2", "r-3"):
        done = subprocess.run(
            [sys.executable, "-c", SHARED, database, run, "live", str(tmp_path)], check=True, timeout=60,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout == f"{run}\n"
    assert set(engine.recorded_workflows(database)) == {"r-1", "r-2", "r-3"}
    for _ in range(2):
        engine.forget_workflows(database, ["r-1", "r-3", "r-9"])
        assert engine.recorded_workflows(database) == ["r-2"]
    tables = sa.create_engine(database)
    schema = None if tables.dialect.name == "sqlite" else "dbos"
    with tables.connect() as connection:
        for name in ("operation_outputs", "workflow_input"):
            table = sa.table(name, sa.column("workflow_uuid"), schema=schema)
            assert set(connection.execute(sa.select(table.c.workflow_uuid)).scalars()) <= {"r-2"}, name


def test_steps_that_cannot_be_deleted_are_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"this was a database once" * 400)
    with pytest.raises(HostFailed, match=r"the database failed: .*not a database"):
        engine.recorded_workflows(f"sqlite:///{tmp_path}/state.db")


def test_a_database_that_fails_in_mid_run_is_told_in_words(tmp_path: Path) -> None:
    ended = start(tmp_path, f"sqlite:///{tmp_path}/state.db", how="corrupt")
    what, next_step = json.loads(ended.stdout)
    assert what.startswith("the database failed in the middle of the run: ") and "controller resume" in next_step
    assert "Traceback" not in ended.stderr


SHARED = """
import os, sys, time
from pathlib import Path
from dbos import DBOS, DBOSConfiguredInstance
from controller.model.errors import BadInput, Unexpected
from controller.workflow import engine

database, run, how, folder = sys.argv[1:4] + [Path(sys.argv[4])]


@DBOS.dbos_class()
class Flow(DBOSConfiguredInstance):
    @DBOS.workflow(name="flow")
    def run(self, request):
        try:
            return engine.step("work", lambda: self.work(request["run"]), str)
        except Unexpected as error:
            return [error.what, "work" in error.traceback]

    def work(self, asked):
        with (folder / "work").open("a") as file:
            file.write(f"{asked} by {run}\\n")
        if how == "die":
            os._exit(9)
        if how == "exit":
            raise SystemExit(1)
        if how == "oserror":
            raise OSError(28, "No space left on device")
        if how == "wait" and asked == run:
            time.sleep(6)
        return asked


flow = Flow("flow")
try:
    with engine.launched(database, run):
        print(engine.start(flow.run, run, {"run": run})())
except BadInput as error:
    print(error)
"""


def begin(folder: Path, database: str, run: str, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SHARED, database, run, how, str(folder)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_a_run_is_carried_out_by_its_own_process_though_others_share_the_database(
    tmp_path: Path, database: str
) -> None:
    assert begin(tmp_path, database, "r-staging", "die").wait(60) == 9
    prod = begin(tmp_path, database, "r-prod", "wait")
    deadline = time.monotonic() + 30
    while "r-prod" not in (tmp_path / "work").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    resumed = begin(tmp_path, database, "r-staging", "live")
    assert resumed.communicate(timeout=60)[0].strip() == "r-staging"
    assert prod.communicate(timeout=60)[0].strip() == "r-prod"
    lines = (tmp_path / "work").read_text().splitlines()
    assert lines == ["r-staging by r-staging", "r-prod by r-prod", "r-staging by r-staging"]


def test_who_dies_in_a_resumption_leaves_nothing_that_the_next_run_picks_up(tmp_path: Path, database: str) -> None:
    for _ in range(2):
        assert begin(tmp_path, database, "r-1", "die").wait(60) == 9
    assert begin(tmp_path, database, "r-2", "wait").wait(60) == 0
    assert (tmp_path / "work").read_text().splitlines()[2:] == ["r-2 by r-2"]


@pytest.mark.parametrize(("how", "what"), [("exit", "SystemExit: 1"), ("oserror", "No space left on device")])
def test_whatever_a_step_raises_is_an_error_that_the_run_ends_with(
    how: str, what: str, tmp_path: Path, database: str
) -> None:
    for _ in range(2):
        told = begin(tmp_path, database, "r-1", how).communicate(timeout=60)[0]
        assert "a fault of Ratchet's own" in told and what in told and told.strip().endswith("True]")
    # It is recorded: the second one only read it.
    assert (tmp_path / "work").read_text() == "r-1 by r-1\n"


def test_a_run_that_another_release_began_is_not_waited_for(tmp_path: Path, database: str) -> None:
    assert begin(tmp_path, database, "r-1", "die").wait(60) == 9
    engine = sa.create_engine(database)
    table = "workflow_status" if database.startswith("sqlite") else "dbos.workflow_status"
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {table} SET application_version = '1'"))  # noqa: S608
    told = begin(tmp_path, database, "r-1", "live").communicate(timeout=60)[0]
    assert "begun by another release" in told and "controller end r-1" in told
