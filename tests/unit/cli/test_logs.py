"""Where log lines go, and what they look like there."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from controller.adapters import secrets
from controller.cli import logs, status
from controller.cli.logs import log_of_run, logged
from controller.cli.main import build_parser, main
from controller.cli.progress import ProgressDisplay
from controller.model.events import Notice
from controller.model.project import Project

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ [A-Z]+ [\w.-]+: .*")
SSH = logging.getLogger("controller.adapters.ssh.connection")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(secrets, "_known", set())
    assert main(["init", str(tmp_path / "site"), "--static"]) == 0
    monkeypatch.chdir(tmp_path / "site")
    return Project(tmp_path / "site")


def file_of(project: Project) -> Path:
    return project.state / "log/controller.log"


def arguments(verbose: int = 0, command: str = "status") -> argparse.Namespace:
    return argparse.Namespace(command=command, verbose=verbose, project=None)


def saying(*texts: str) -> Callable[[object], int]:
    def run(_args: object) -> int:
        for text in texts:
            SSH.info("%s", text)
        SSH.debug("in detail")
        logging.getLogger("paramiko.transport").debug("kex begins")
        logging.getLogger("urllib3.connectionpool").warning("retrying")
        logging.getLogger("sqlalchemy.engine").debug("a row with a password")
        sys.stdout.write('{"fleet": "web"}\n')
        return 0

    return run


@pytest.mark.parametrize(
    ("words", "verbose"),
    [
        ("status --fleet web", 0),
        ("-v status --fleet web", 1),
        ("status -v --fleet web", 1),
        ("status --fleet web --verbose", 1),
        ("-vv status --fleet web", 2),
        ("status --fleet web -vv", 2),
        ("-v --project . status -v --fleet web", 2),
        ("experiments list -v", 1),
        ("experiments -v list -v", 2),
        ("-v lab up --name x -v", 2),
    ],
)
def test_verbosity_is_asked_for_before_or_after_any_word_of_a_command(
    words: str, verbose: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    name = next(word for word in words.split() if word in {"status", "experiments", "lab"})
    build_parser(name)
    module = sys.modules[f"controller.cli.{name}"]

    def run(args: argparse.Namespace) -> int:
        seen.append(args.verbose)
        return 0

    monkeypatch.setattr(module, "run", run)
    assert main(words.split()) == 0
    assert seen == [verbose]


ASKED, RETRYING = "INFO ssh: was asked", "WARNING urllib3: retrying"
DETAIL, KEX = "DEBUG ssh: in detail", "DEBUG paramiko: kex begins"


@pytest.mark.parametrize(
    ("option", "shown"), [([], []), (["-v"], [ASKED, RETRYING]), (["-vv"], [ASKED, DETAIL, KEX, RETRYING])]
)
def test_each_v_shows_more_on_stderr_and_nothing_on_stdout(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    shown: list[str],
) -> None:
    monkeypatch.setattr(status, "run", saying("was asked"))
    assert main(["status", "--fleet", "web", *option, "--output", "json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"fleet": "web"}
    assert [line.partition("Z ")[2] for line in told.err.splitlines()] == shown
    kept = file_of(project).read_text()
    assert "DEBUG controller.adapters.ssh.connection: in detail" in kept
    assert "WARNING urllib3.connectionpool: retrying" in kept
    assert ("kex begins" in kept) is (option == ["-vv"])
    assert "a row with" not in kept


@pytest.mark.usefixtures("project")
def test_json_stays_pure_in_a_process_of_its_own() -> None:
    words = [sys.executable, "-P", "-m", "controller", "-vv", "audit", "--output", "json", "-v"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert json.loads(done.stdout) == {"entries": [], "not_ended": []}


def test_a_file_has_one_line_an_event_in_utc_for_the_operator_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half a character: pytest's own handler would keep it for a report, which xdist could not send.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    said = "first\nsecond\r\x1b[2J\u202e\udce9\ttab\x00"
    monkeypatch.setattr(status, "run", saying(said))
    assert main(["status", "--fleet", "web"]) == 0
    file = file_of(project)
    lines = file.read_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert lines[1].endswith(r"connection: first\nsecond\r\x1b[2J\u202e\udce9\ttab\x00")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_secrets_are_in_no_line_and_in_no_traceback(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HCLOUD_TOKEN", "planted-token")
    monkeypatch.setenv("RATCHET_DATABASE_URL", "postgresql://u:planted%2Fword@127.0.0.1/db")

    def broken(_args: object) -> int:
        saying("Authorization: Bearer planted-token")(None)
        raise TypeError("postgresql+psycopg://u:planted%2Fword@127.0.0.1/db cannot be planted-token")

    monkeypatch.setattr(status, "run", broken)
    assert main(["status", "--fleet", "web", "-vv"]) == 3
    assert "Bearer ***" in capsys.readouterr().err
    kept = file_of(project).read_text()
    assert "a fault of Ratchet's own in controller status" in kept
    assert r"Traceback (most recent call last):\n" in kept and "in broken" in kept
    files = [path for path in project.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name.startswith("traceback-") for path in files)
    assert [path for path in files if b"planted" in path.read_bytes()] == []


def test_a_long_line_keeps_its_beginning_and_its_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "run", saying("begins" + "x" * 1_000_000 + "ends"))
    assert main(["status", "--fleet", "web"]) == 0
    line = file_of(project).read_text().splitlines()[1]
    assert "begins" in line and " [...] " in line and line.endswith("ends") and len(line) < 10_000


def test_a_full_disk_is_told_once_and_takes_no_half_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with logged(arguments()):
        SSH.info("first")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_of(project).stat().st_size + 40, hard))
        try:
            SSH.info("too much" * 10)
            SSH.info("too much" * 10)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        SSH.info("last")
    lines = file_of(project).read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["first", "last"]
    assert capsys.readouterr().err.count("controller.log: No space left on device") == 1


@pytest.mark.parametrize("in_the_way", ["log", "log/controller.log/x"])
def test_a_place_that_cannot_be_written_is_told_once_and_ends_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_the_way: str
) -> None:
    path = project.state / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    monkeypatch.setattr(status, "run", saying("one", "two"))
    assert main(["status", "--fleet", "web"]) == 0
    assert capsys.readouterr().err.count("warning: ") == 1


def test_what_is_no_file_of_ours_keeps_its_mode(project: Project) -> None:
    before = Path("/dev/null").stat().st_mode
    file_of(project).parent.mkdir()
    file_of(project).symlink_to("/dev/null")
    with logged(arguments()):
        SSH.info("said to nobody")
    assert Path("/dev/null").stat().st_mode == before


def test_two_files_hold_the_last_lines_however_many_commands_write_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LARGEST_BYTES", 20_000)
    files = [logs._File(file_of(project)) for _ in range(4)]
    file_of(project).parent.mkdir()

    def write(number: int) -> None:
        for count in range(400):
            record = logging.LogRecord("x", logging.INFO, "", 0, f"{number} {count:04} {'x' * 50}", None, None)
            files[number].handle(record)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    kept = [path.read_text() for path in (file_of(project), file_of(project).with_name("controller.log.1"))]
    # A line of each of the others may come after the last look at its size.
    assert len(kept[0]) <= 20_300
    # Whoever renames it finds it full, and the others find it renamed.
    assert 19_000 < len(kept[1]) <= 20_300
    lines = "".join(kept).splitlines()
    assert all(re.fullmatch(r"\d \d{4} x{50}", line) for line in lines) and len(set(lines)) == len(lines)


def test_a_runs_log_begins_with_what_led_to_it_and_has_all_that_comes(project: Project) -> None:
    folder = project.runs / "r-20261123-201500-3fa9"
    folder.mkdir(parents=True)
    with logged(arguments(command="optimize")):
        SSH.debug("claimed")
        log_of_run(folder)
        SSH.debug("measured")
    log = folder / "controller.log"
    assert [line.rpartition(" ")[2] for line in log.read_text().splitlines()] == ["claimed", str(log), "measured"]
    assert log.stat().st_mode & 0o777 == 0o600
    assert "measured" not in file_of(project).read_text()
    assert f"going on in {log}" in file_of(project).read_text()


@pytest.mark.parametrize("command", ["history", "show", "init"])
def test_what_only_looks_at_files_writes_none(project: Project, command: str) -> None:
    with logged(arguments(command=command)):
        SSH.warning("said")
    assert not file_of(project).exists()


@pytest.mark.usefixtures("project")
def test_nothing_is_left_behind_when_a_command_ends() -> None:
    names = ["", "controller", *logs.THIRD_PARTIES]
    before = [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]
    with logged(arguments(2)):
        assert logging.getLogger("paramiko").level == logging.DEBUG
    assert before == [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]


def test_what_the_display_tells_is_in_the_file_and_not_twice_on_stderr(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(arguments(2)), ProgressDisplay(Console(stderr=True)) as display:
        display(Notice(level="warning", host="web-1", text="was edited by hand"))
    assert capsys.readouterr().err.count("was edited by hand") == 1
    assert "WARNING controller.cli.progress: web-1: was edited by hand" in file_of(project).read_text()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("project")
def test_lines_fit_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    with logged(arguments(1)):
        SSH.info("web-1: `sudo -n /usr/local/sbin/ratchet-host status; df -Pm /var/lib` exit 0 " + "x" * 300)
        SSH.info("web-2: short")
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if not line.startswith("  ")] == [lines[0], lines[-1]]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}Z INFO ssh: web-2: short", lines[-1])


@pytest.mark.usefixtures("project")
def test_lines_are_shown_above_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    console = Console(stderr=True, force_terminal=True, width=80)
    with logged(arguments(1)), ProgressDisplay(console) as display:
        assert display._progress is not None
        display._progress.add_task("trial 1 of 1", live="")
        display._progress.refresh()
        SSH.info("web-1: asked")
        display._progress.refresh()
    # The bar's line is cleared before the text, and drawn again below it.
    before, _, after = screen.getvalue().partition("INFO ssh: web-1: asked")
    assert before.rpartition("\x1b[2K")[2].strip().startswith(re.findall(r"\d\d:\d\d:\d\d", before)[-1])
    assert "trial 1 of 1" in after
