"""The disk that stderr goes to is full: what is told there ends no run."""

from __future__ import annotations

import errno
import io
from pathlib import Path

from rich.console import Console

from controller.cli.progress import EventLog, ProgressDisplay
from controller.model.events import Notice, StepStarted


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_progress_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.jsonl")
    with ProgressDisplay(Console(file=Full())) as display:
        for event in (StepStarted(text="checking the hosts"), Notice(level="warning", text="was edited by hand")):
            log.write("2026-11-24T12:00:00Z", event)
            display(event)
    log.close()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
