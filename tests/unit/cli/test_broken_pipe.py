"""A pipe that its reader has ended, and a terminal that went away: neither ends a run, nor changes its exit code."""

from __future__ import annotations

import os
import subprocess
import sys

from rich.console import Console

from controller.cli.progress import ProgressDisplay
from controller.model.events import PairJudged, StepStarted
from controller.model.trial import Judgement

PROGRAM = """
import sys
from controller.cli import main, optimize
from controller.model.run import RunResult

RESULT = RunResult(
    run_id="r-1", fleet="web", seed=1, status="interrupted", started_at="2026-01-01T00:00:00Z", seconds=1.0, trials=[],
    baseline_before={}, baseline_after={}, message="stopped by the operator " + "x" * 100_000,
)

def run(_args):
    sys.stdin.readline()
    optimize.show_result(RESULT, as_json=sys.argv[1] == "json")
    return optimize.exit_code(RESULT)

import types
main.importlib = types.SimpleNamespace(import_module=lambda _: types.SimpleNamespace(run=run, add_arguments=id))
sys.exit(main.main(["runs"]))
"""


def test_a_run_whose_reader_is_gone_ends_with_its_own_code() -> None:
    for output in ("text", "json"):
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, output],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert running.stdin and running.stdout
        running.stdout.close()
        running.stdin.write(b"\n")
        running.stdin.close()
        assert running.wait(60) == 130


class Gone:
    """A terminal's pipe that nobody reads."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def write(self, _text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_progress_that_cannot_be_drawn_ends_no_run() -> None:
    display = ProgressDisplay(Console(file=Gone()))  # type: ignore[arg-type]
    display(StepStarted(text="checking the hosts"))
    # A trial whose start another process has told.
    judgement = Judgement(action="continue", evidence=1, evidence_slower=1, threshold=100, pairs=1)
    shown = ProgressDisplay(Console(file=open(os.devnull, "w"), force_terminal=True))  # noqa: SIM115, PTH123
    with shown:
        shown(
            PairJudged(
                trial=2, phase="live check", host="web-1", number=1, judgement=judgement, seconds=1,
                seconds_left_at_most=1,
            )
        )  # fmt: skip
