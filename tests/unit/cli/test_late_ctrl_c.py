"""Ctrl-C beside the work: while hosts are given back it loses no verdict, before the work it ends the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.run_setup import signals_as_ctrl_c

PROGRAM = """
import contextlib, datetime, os, pathlib, signal, sys, threading, time, types
from controller.adapters.audit import AuditLog
from controller.adapters.store import Store
from controller.cli import main, optimize, running
from controller.model.fleet import Fleet, FleetSettings, Host
from controller.model.project import Project
from controller.model.run import RunResult
from controller.model.steps import RunRequest
from controller.workflow.fleet.claims import Claims
from controller.workflow.context import RunContext

signal.signal(signal.SIGHUP, signal.SIG_IGN if os.environ.get("NOHUP") else signal.SIG_DFL)
when, number, root = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
RESULT = RunResult(
    run_id="r-1", fleet="web", seed=1, status="completed", started_at="2026-01-01T00:00:00Z", seconds=1.0, trials=[],
    baseline_before={}, baseline_after={}, message="",
)
project, store = Project(root), Store(f"sqlite:///{root}/state.db")
host = Host(name="web-1", address="192.0.2.1", key_file=root / "key", known_hosts=root / "known")
context = RunContext(
    project=project, fleet=Fleet(name="web", inventory=root, settings=FleetSettings(), hosts=[host]), store=store,
    audit=AuditLog(project, store), observer=lambda event: None, clock=lambda: datetime.datetime.now(datetime.UTC),
    claims=Claims(),
)

def away():  # what a host that cannot be reached costs
    threading.Timer(0.3, lambda: os.kill(os.getpid(), number)).start()
    time.sleep(1.5)

Claims._take = lambda self, by_force: away() if when == "taken" else None
Claims._release = lambda self: away() if when == "released" else None

class Flow:
    def __init__(self, *_): pass
    def run(self): pass

running.Optimize = Flow
ENDED = {"result": RESULT, "left": {}, "kept": ""}
running.engine = types.SimpleNamespace(launched=lambda *_: contextlib.nullcontext(), start=lambda *_: lambda: ENDED)
running.finalize = types.SimpleNamespace(seal=lambda *_: RESULT)

def run(_):
    request = RunRequest(run_id="r-1", started_at="2026-01-01T00:00:00Z", seed=1, experiments=[])
    result = running.carry_out(context, request)
    optimize.show_result(result, as_json=True)
    return optimize.exit_code(result)

main.importlib = types.SimpleNamespace(import_module=lambda _: types.SimpleNamespace(run=run, add_arguments=id))
sys.exit(main.main(["runs"]))
"""


def run(when: str, number: int, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, when, str(number), root],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_signal_while_the_hosts_are_given_back_loses_no_verdict(number: int, tmp_path: Path) -> None:
    done = run("released", number, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed"
    assert "the run has ended; its hosts are being given back" in done.stderr


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_signal_before_the_work_has_begun_ends_the_command(number: int, tmp_path: Path) -> None:
    done = run("taken", number, tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert "interrupted" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_terminal_s_end_is_ignored_where_it_is_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOHUP", "1")
    done = run("taken", 1, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["status"] == "completed"


def test_the_terminal_s_end_ends_what_is_held_for_servers_as_ctrl_c_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), signals_as_ctrl_c():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
