"""What podman's exit codes mean: it may warn whatever it answers, as it does on its first run on a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.lab.commands import CommandFailed, exists


def _podman(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    program = folder / "podman"
    program.write_text(f"#!/bin/sh\necho 'level=warning msg=\"Error validating CNI config file\"' >&2\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(("code", "there"), [(0, True), (1, False)])
def test_a_warning_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, there: bool) -> None:
    _podman(tmp_path, monkeypatch, code)
    assert exists("image", "localhost/any:thing") is there


def test_an_error_is_neither_yes_nor_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _podman(tmp_path, monkeypatch, 125)
    with pytest.raises(CommandFailed, match=r"exited 125.*Error validating CNI"):
        exists("container", "any")
