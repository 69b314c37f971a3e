"""Durable steps: recorded once, errors and all, across a killed process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

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
        first = engine.step("first", lambda: count("first"))
        try:
            engine.step("fails", self.fail)
        except HostFailed as error:
            failed = [error.what, error.where, error.next_step]
        second = engine.step("second", self.second)
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
    assert (tmp_path / "second").read_text() == "x"


def test_a_database_that_fails_in_mid_run_is_told_in_words(tmp_path: Path) -> None:
    ended = start(tmp_path, f"sqlite:///{tmp_path}/state.db", how="corrupt")
    what, next_step = json.loads(ended.stdout)
    assert what.startswith("the database failed in the middle of the run: ") and "controller resume" in next_step
    assert "Traceback" not in ended.stderr
