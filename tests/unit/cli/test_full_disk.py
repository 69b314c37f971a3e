"""Where stderr goes is full, or gone: what is told there ends no work, and no display raises."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from controller.cli.host_steps import HostSteps
from controller.cli.progress import EventLog, ProgressDisplay
from controller.model.events import Notice, StepStarted
from controller.workflow.fleet.provision import Progress


class Failing(io.StringIO):
    """A file that fails with `error` once it is set; nobody's standard output is behind it."""

    error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.error:
            raise self.error


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_progress_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    log, file = EventLog(tmp_path / "log.jsonl"), Failing()
    file.error = FULL
    with ProgressDisplay(Console(file=file)) as display:
        for event in (StepStarted(text="checking the hosts"), Notice(level="warning", text="was edited by hand")):
            log.write("2026-11-24T12:00:00Z", event)
            display(event)
    log.close()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), BrokenPipeError(), FULL, ValueError()])
@pytest.mark.parametrize("when", ["at the start", "in the middle"])
@pytest.mark.parametrize("display", [ProgressDisplay, HostSteps])
def test_no_display_raises_whenever_its_terminal_goes_away(
    display: Callable[[Console], Any], when: str, error: OSError, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rich puts /dev/null over it, when a pipe is gone.
    monkeypatch.setattr("rich.console.os.dup2", lambda *_: None)
    file = Failing()
    event = Progress("creating", host="web-1") if display is HostSteps else StepStarted(text="staging")
    if when == "at the start":
        file.error = error
    with display(Console(file=file, force_terminal=terminal)) as shown:
        file.error = error
        shown(event)
        if isinstance(shown, HostSteps):
            with shown.paused():
                pass
            shown(Progress("note: deleted", host="web-1", state="failed"))
