"""Names that people give to folders and fleets, and terminals that do not speak UTF-8."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from controller.adapters.files.keys import ensure_fleet_key
from controller.cli.host_steps import HostSteps
from controller.cli.main import main
from controller.model.project import Project
from controller.workflow.fleet.provision import Progress


@pytest.mark.parametrize("option", ["--project {}", "--project={}", "--proj {}"])
@pytest.mark.parametrize("folder", ["lab", "status", "site"])
def test_a_project_folder_may_be_named_like_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    assert main(["init", folder, "--static"]) == 0
    capsys.readouterr()
    assert main([*option.format(folder).split(), "history", "--fleet", "web"]) == 0
    assert "there is no run yet" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["lav", "--fleet", "web"], ["--project", "lab"]])
def test_what_is_no_command_is_bad_input(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("fleet", ["my_fleet", "Web.eu", "web_eu-1"])
def test_a_static_fleet_is_named_as_its_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fleet: str
) -> None:
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    assert main(["init", str(tmp_path / "site"), "--fleet", fleet, "--static"]) == 0
    project = Project(tmp_path / "site")
    ensure_fleet_key(project, fleet)
    host = "all: {hosts: {a: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n"
    (project.inventory(fleet) / "hosts.yml").write_text(host)
    project.known_hosts(fleet).write_text("")
    capsys.readouterr()
    assert main(["--project", str(project.root), "status", "--fleet", fleet]) == 3
    assert "unreachable over SSH" in capsys.readouterr().out


@pytest.mark.parametrize("fleet", ["my fleet", "-web", "wéb"])
def test_a_folder_whose_name_no_fleet_can_have_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fleet: str
) -> None:
    assert main(["init", str(tmp_path / "site"), "--static"]) == 0
    (tmp_path / "site/inventory/web").rename(tmp_path / "site/inventory" / fleet)
    assert main(["--project", str(tmp_path / "site"), "status", f"--fleet={fleet}"]) == 2
    message = capsys.readouterr().err
    assert "cannot be a fleet's name" in message
    assert "rename the folder" in message


def test_servers_cannot_be_named_after_a_fleet_with_an_underscore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "site"), "--fleet", "my_fleet"]) == 2
    assert main(["init", str(tmp_path / "site")]) == 0
    (tmp_path / "site/inventory/web").rename(tmp_path / "site/inventory/my_fleet")
    assert main(["--project", str(tmp_path / "site"), "provision", "--fleet", "my_fleet"]) == 2
    assert "my_fleet-1 is no host's name" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_steps_are_shown_on_a_terminal_of_any_encoding(encoding: str) -> None:
    screen = io.BytesIO()
    with HostSteps(Console(file=io.TextIOWrapper(screen, encoding=encoding), force_terminal=True)) as steps:
        steps(Progress("creating", host="web-1"))
        time.sleep(0.3)
        steps(Progress("ready", host="web-1", state="ready"))
    assert b"web-1: creating" in screen.getvalue()


def test_what_the_terminal_has_no_letter_for_is_written_as_an_escape(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    words = [sys.executable, "-m", "controller", "init", str(tmp_path / "sité-≥")]
    done = subprocess.run(
        words,
        env=os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "sité-\\u2265".encode("latin-1") in done.stdout
