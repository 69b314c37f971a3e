"""Standard streams that are full, gone or closed: nothing ends early, no exit code is lost, a lost result is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.main import main

TELL = """
import sys, time, types
from controller.cli import main, optimize
from controller.cli.progress import ProgressDisplay
from controller.model.events import StepStarted
from controller.model.run import RunResult

RESULT = RunResult(
    run_id="r-1", fleet="web", seed=1, status="interrupted", started_at="2026-01-01T00:00:00Z", seconds=1.0, trials=[],
    baseline_before={}, baseline_after={}, message="stopped by the operator " + "x" * 100_000,
)

def run(_args):
    with ProgressDisplay() as display:
        time.sleep(0.5)
        for _ in range(20):
            display(StepStarted(text="x" * 1000))
    optimize.show_result(RESULT, as_json=True)
    return optimize.exit_code(RESULT)

main.importlib = types.SimpleNamespace(import_module=lambda _: types.SimpleNamespace(run=run, add_arguments=id))
sys.exit(main.main(["runs"]))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    assert main(["init", str(tmp_path / "site"), "--static"]) == 0
    return tmp_path / "site"


def shell(line: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line, sys.executable, *words],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


@pytest.mark.parametrize("gone", ["2>/dev/full", "2> >(exec true)", "2>&-"])
def test_a_result_is_whole_and_its_exit_code_the_runs_own_wherever_stderr_goes(gone: str) -> None:
    done = shell(f'"$0" -c "$1" {gone}', TELL)
    assert done.returncode == 130
    assert len(done.stdout) > 100_000 and done.stdout.endswith("}\n")


def test_a_result_that_meets_a_full_disk_is_told_and_keeps_the_runs_exit_code() -> None:
    done = shell('"$0" -c "$1" >/dev/full', TELL)
    assert done.returncode == 130
    assert "the output could not be written whole: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize("command", ["history", "runs", "audit"])
def test_output_on_a_full_disk_is_one_sentence_and_no_success(command: str, output: str, project: Path) -> None:
    words = ("--project", project, command, "--output", output)
    done = shell('"$0" -m controller "$@" >/dev/full', *words)
    expected = (0, "") if (command, output) == ("audit", "text") else (3, "the output could not be written whole")
    assert done.returncode == expected[0]
    assert expected[1] in done.stderr and "Traceback" not in done.stderr
    for closed in (">&-", "<&-", ">&- 2>&- <&-"):
        assert shell(f'"$0" -m controller "$@" {closed}', *words).returncode == 0


def test_help_on_a_full_disk_is_no_success() -> None:
    assert shell('"$0" -m controller --help >/dev/full').returncode == 3


@pytest.mark.parametrize("gone", ["2>/dev/full", "2> >(exec true)", "2>&-", "2>&1 | true; exit ${PIPESTATUS[0]}"])
def test_an_error_that_nobody_can_read_keeps_its_exit_code(gone: str, project: Path) -> None:
    assert shell(f'"$0" -m controller "$@" {gone}', "--project", project, "status", "--fleet", "nope").returncode == 2


def test_a_reader_who_has_read_enough_ends_in_no_error(project: Path) -> None:
    line = '(sleep 0.2; "$0" -m controller "$@") | true; exit ${PIPESTATUS[0]}'
    for output in ("text", "json"):
        done = shell(line, "--project", project, "history", "--output", output)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stdin_is_no_answer(project: Path) -> None:
    assert main(["init", str(project), "--fleet", "cloud"]) == 0
    for closed in ("<&-", "</dev/null"):
        words = ("--project", project, "destroy", "--fleet", "cloud")
        done = shell(f'"$0" -m controller "$@" {closed}', *words)
        assert done.returncode == 2
        assert "there is no terminal to ask on" in done.stderr
