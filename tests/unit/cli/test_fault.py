"""What is no expected error ends in one sentence, and its traceback in a file; folders that are none are bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import runs
from controller.cli.main import main

LEAVE = 'cd "$0" && rmdir "$0" && exec "$@"'


def broken(_args: object) -> int:
    raise TypeError("unsupported operand")


def told_file(message: str) -> Path:
    return Path(message.split("report it, please, with ")[1].split(";", maxsplit=1)[0])


def test_a_fault_of_ours_is_one_sentence_that_names_the_file_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "site"), "--static"]) == 0
    monkeypatch.setattr(runs, "run", broken)
    for known in (True, False):
        words = ["--project", str(tmp_path / "site")] if known else ["--project", str(tmp_path / "nothing")]
        assert main([*words, "runs"]) == 3
        message = capsys.readouterr().err
        assert "a fault of Ratchet's own: TypeError: unsupported operand" in message
        assert "Traceback" not in message
        file = told_file(message)
        assert (file.parent == tmp_path / "site/.ratchet") is known
        assert "in broken" in file.read_text()
        assert file.stat().st_mode & 0o077 == 0
        file.unlink()


def test_a_traceback_that_can_be_written_nowhere_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "run", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert main(["--project", str(tmp_path), "runs"]) == 3
    assert "in broken" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--project", "{}", "runs"], ["init", "{}"]])
@pytest.mark.parametrize("folder", ["a" * 300, "loop"])
def test_a_folder_that_can_be_none_is_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert main([word.format(folder) for word in words]) == 2
    message = capsys.readouterr().err
    assert folder in message and "next: " in message and "fault" not in message


@pytest.mark.parametrize("words", [["runs"], ["init", "site"], ["init", "."]])
def test_a_working_folder_that_is_gone_is_bad_input(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["bash", "-c", LEAVE, tmp_path / "gone", sys.executable, "-m", "controller", *words],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "fault" not in done.stderr
