"""`log.jsonl` holds whole lines, and a disk that is full stops no run."""

from __future__ import annotations

import io
import json
import resource
from pathlib import Path

import pytest

from controller.cli.progress import EventLog
from controller.model.events import Notice, StepStarted


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_a_full_disk_is_told_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = EventLog(Path("/dev/full"))
    log.write("2026-11-24T12:00:00Z", StepStarted(text="staging"))
    log.close()
    assert "log.jsonl: No space left on device" in capsys.readouterr().err


def test_what_fits_in_part_is_not_written_at_all(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = EventLog(path)
    log.write("2026-11-24T12:00:00Z", StepStarted(text="first"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, hard))
    try:
        log.write("2026-11-24T12:00:01Z", StepStarted(text="too much" * 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write("2026-11-24T12:00:02Z", StepStarted(text="last"))
    log.close()
    assert texts(path) == ["first", "last"]


class Gone(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_a_line_that_can_be_told_nowhere_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(Path("/dev/full"))
    monkeypatch.setattr("sys.stderr", Gone())
    log.write("2026-11-24T12:00:00Z", StepStarted(text="staging"))
    log.close()
    log.write("2026-11-24T12:00:00Z", StepStarted(text="after its end"))


def test_a_name_that_is_not_utf_8_is_logged_with_an_escape(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.jsonl")
    log.write("2026-11-24T12:00:00Z", Notice(level="warning", host="web-1", text="caf\udce9.conf was added"))
    log.close()
    assert texts(tmp_path / "log.jsonl") == ["caf\udce9.conf was added"]
