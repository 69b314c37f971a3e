"""The audit log shows every edit, deletion and reordering; what a kill or a full disk leaves is no tampering."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.audit import AuditLog
from controller.adapters.store import Store
from controller.cli.main import main
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project

# A controller of its own: `log` of the project that is its first argument.
PROCESS = """
import sys
from pathlib import Path
from controller.adapters.audit import AuditLog
from controller.adapters.store import Store
from controller.model.project import Project
project = Project(Path(sys.argv[1]))
log = AuditLog(project, Store(f"sqlite:///{project.state}/ratchet.db"))
def record(why="x"):
    return log.record(at="2026-11-24T00:00:00Z", action="commit", fleet="prod", hosts=["web-1"], why=why)
"""


def log_of(folder: Path) -> AuditLog:
    project = Project(folder)
    project.state.mkdir(exist_ok=True)
    return AuditLog(project, Store(f"sqlite:///{project.state}/ratchet.db"))


def add(log: AuditLog, why: str = "x", **more: Any) -> int:
    known: dict[str, Any] = {"at": "2026-11-24T00:00:00Z", "action": "commit", "fleet": "prod", "hosts": ["web-1"]}
    return log.record(**known | {"why": why} | more)


def make_log(folder: Path, entries: int = 4) -> tuple[AuditLog, Path]:
    log = log_of(folder)
    for number in range(entries):
        add(log, f"trial {number}: proven-gain", hosts=["web-2", "web-1"], evidence={"run": "r-1", "effect": 0.25})
    return log, folder / ".ratchet/audit.jsonl"


def process(folder: Path, script: str, *before: str) -> list[str]:
    return [*before, sys.executable, "-c", PROCESS + script, str(folder)]


def is_whole(log: AuditLog, entries: int) -> bool:
    seen = log.verify()
    return seen.findings == [] and seen.entries == entries == len(log.entries())


def test_an_untouched_log_is_whole_and_private(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    assert is_whole(log, 4)
    assert log.verify().notes == []
    assert [entry["number"] for entry in log.entries()] == [1, 2, 3, 4]
    assert {oct(each.stat().st_mode & 0o777) for each in path.parent.glob("audit*")} == {"0o600"}


def test_two_projects_may_share_a_database(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/shared.db")
    logs = []
    for name, entries in (("one", 1), ("two", 3)):
        (tmp_path / name).mkdir()
        logs.append(AuditLog(Project(tmp_path / name), store))
        for _ in range(entries):
            add(logs[-1])
    assert [log.verify().findings for log in logs] == [[], []]
    (tmp_path / "two/.ratchet/audit.jsonl").unlink()
    assert logs[0].verify().findings == []
    assert "the end differs" in logs[1].verify().findings[0].what


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditLog, Path, str]:
    log, path = make_log(tmp_path_factory.mktemp("whole"))
    return log, path, path.read_text()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_edit_deletion_or_reordering_shows(whole: tuple[AuditLog, Path, str], data: st.DataObject) -> None:
    log, path, text = whole
    lines = text.splitlines(keepends=True)
    kind = data.draw(st.sampled_from(["edit", "add", "delete", "swap", "duplicate", "cut"]))
    at = data.draw(st.integers(0, len(lines) - 1))
    if kind == "edit":
        entry = json.loads(lines[at])
        field = data.draw(st.sampled_from(["at", "who", "action", "why", "fleet"]))
        entry[field] += "x"
        lines[at] = json.dumps(entry) + "\n"
    elif kind == "add":
        lines[at] = json.dumps(json.loads(lines[at]) | {"state": "failed"}) + "\n"
    elif kind == "delete":
        del lines[at]
    elif kind == "duplicate":
        lines.insert(at, lines[at])
    elif kind == "cut":
        lines[-1] = lines[-1][: data.draw(st.integers(0, len(lines[-1]) - 2))]
    else:
        other = (at + 1) % len(lines)
        lines[at], lines[other] = lines[other], lines[at]
    path.write_text("".join(lines))
    assert log.verify().findings != []


@pytest.mark.parametrize("size", [(1 << 16) - 400, 1 << 16, 300_000, 2_000_000])
def test_the_chain_goes_on_after_an_entry_of_any_length(tmp_path: Path, size: int) -> None:
    log, _ = make_log(tmp_path, 2)
    assert [add(log, "y" * size), add(log), add(log, "z" * size), add(log)] == [3, 4, 5, 6]
    assert is_whole(log, 6)


def test_a_kill_between_an_entry_and_its_head_is_no_tampering_and_hides_none(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    size = path.stat().st_size
    # Another writer has the database, so that the controller waits just there.
    other = sqlite3.connect(path.parent / "ratchet.db", isolation_level=None)
    running = subprocess.Popen(process(tmp_path, "print(flush=True)\nsys.stdin.read(1)\nrecord()"), stdin=-1, stdout=-1)
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdout.readline()
    other.execute("BEGIN EXCLUSIVE")
    running.stdin.write(b"x")
    running.stdin.flush()
    while path.stat().st_size == size:
        time.sleep(0.01)
    running.kill()
    running.wait()
    other.execute("ROLLBACK")
    assert is_whole(log, 5)
    assert add(log) == 6
    assert is_whole(log, 6)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert "remembers another number 6" in log.verify().findings[0].what


def test_a_database_that_fails_costs_no_entry(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    database = path.parent / "ratchet.db"
    before = database.read_bytes()
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(HostFailed, match="the database failed"):
        log.verify()
    assert add(log) == 5
    database.write_bytes(before)
    assert is_whole(log, 5)
    add(log)
    assert is_whole(log, 6)


@pytest.mark.parametrize("left", [1, 9, 40, 200, -1])
def test_a_line_that_was_broken_off_is_told_apart_from_tampering_and_kept(tmp_path: Path, left: int) -> None:
    log, path = make_log(tmp_path)
    before = path.read_bytes()
    add(log)
    line = path.read_bytes().removeprefix(before)
    # The same, as a kill in the middle of the line would have left it.
    shutil.rmtree(path.parent)
    log, path = make_log(tmp_path)
    torn = line[: left - 1 if left < 0 else left]
    with path.open("ab") as file:
        file.write(torn)
    seen = log.verify()
    assert seen.findings == []
    assert [note.line for note in seen.notes] == [5]
    assert "broken off" in seen.notes[0].what
    assert add(log, "after it") == 5
    assert is_whole(log, 5)
    assert log.verify().notes == []
    assert log.entries()[-1]["torn"].encode() == torn
    assert path.read_bytes().count(b"\n") == 5


def test_what_a_power_cut_left_need_not_be_text(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"number":5\0\0\0\xff')
    assert log.verify().findings == []
    add(log)
    assert is_whole(log, 5)
    assert log.entries()[-1]["torn"] == '{"number":5\0\0\0\\xff'


def test_an_entry_without_the_end_of_its_line_is_an_entry(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert is_whole(log, 4)
    assert log.verify().notes == []
    assert add(log) == 5
    assert is_whole(log, 5)


def test_a_cut_in_the_middle_of_the_last_line_stays_one_after_the_next_entry(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    for _ in range(3):
        assert "the end differs" in log.verify().findings[0].what
        add(log)


def test_an_earlier_version_s_broken_line_in_the_middle_is_no_tampering(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:70] + b"\n", *lines[2:]]))
    assert is_whole(log, 4)
    assert [note.line for note in log.verify().notes] == [3]


FULL = """
import os, resource
from controller.model.errors import HostFailed
path = project.state / "audit.jsonl"
# A limit takes a part of a line as a disk does that fills up.
limit = path.stat().st_size + 100
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    record("y" * 500)
except HostFailed as error:
    print(error)
"""


@pytest.mark.parametrize("torn", [b"", b'{"number":5,"at":"2026'])
def test_a_disk_that_fills_up_in_a_line_leaves_the_log_as_it_was(tmp_path: Path, torn: bytes) -> None:
    log, path = make_log(tmp_path)
    path.write_bytes(path.read_bytes() + torn)
    before = path.read_bytes()
    done = subprocess.run(process(tmp_path, FULL), capture_output=True, text=True, timeout=60, check=True)
    assert "the audit log cannot be written: No space left" in done.stdout
    assert "next: free the disk" in done.stdout
    assert path.read_bytes() == before
    assert log.verify().findings == []
    add(log)
    assert is_whole(log, 5)


def test_processes_that_append_at_once_and_one_that_verifies_see_a_whole_log(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    running = [subprocess.Popen(process(tmp_path, "for n in range(20): record('y' * n * 500)")) for _ in range(3)]
    while any(each.poll() is None for each in running):
        assert log.verify().findings == []
    assert [each.returncode for each in running] == [0, 0, 0]
    assert is_whole(log, 60)
    assert [entry["number"] for entry in log.entries()] == list(range(1, 61))


def test_a_process_that_was_stopped_with_the_log_is_waited_for_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, path = make_log(tmp_path)
    monkeypatch.setattr("controller.adapters.audit.log.LOCK_SECONDS", 0.5)
    script = (
        "import fcntl\nfile = open(log._path)\nfcntl.flock(file, fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen(process(tmp_path, script), stdin=-1, stdout=-1)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    before = path.read_bytes()
    with pytest.raises(HostFailed, match="cannot be written: another process has had it for"):
        add(log)
    with pytest.raises(BadInput, match="cannot be read: another process has had it for"):
        log.verify()
    holder.kill()
    holder.wait()
    assert path.read_bytes() == before
    assert add(log) == 5


def test_a_project_that_moves_keeps_its_head(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    make_log(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    log, path = log_of(tmp_path / "two"), tmp_path / "two/.ratchet/audit.jsonl"
    assert is_whole(log, 4)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert "the end differs" in log.verify().findings[0].what
    path.unlink()
    assert "the end differs" in log.verify().findings[0].what


RENAMED = ("unshare", "--user", "--map-root-user", "--uts")


@pytest.mark.skipif(subprocess.run([*RENAMED, "true"], check=False).returncode != 0, reason="no namespaces here")
def test_a_machine_that_is_renamed_keeps_its_log(tmp_path: Path) -> None:
    make_log(tmp_path)
    script = (
        "import socket\nsocket.sethostname('renamed')\nprint(log.verify().findings, record(), log.verify().findings)"
    )
    done = subprocess.run(process(tmp_path, script, *RENAMED), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[] 5 []\n"
    log = log_of(tmp_path)
    assert is_whole(log, 5)
    assert log.entries()[-1]["who"].endswith("@renamed")


def old_log(folder: Path, entries: int) -> AuditLog:
    """A log as versions before 0.2 wrote it, with its head."""
    log = log_of(folder)
    path, previous = folder / ".ratchet/audit.jsonl", "0" * 64
    for number in range(1, entries + 1):
        entry: dict[str, Any] = {
            "number": number, "at": "2026-11-24T00:00:00Z", "who": "me@here", "action": "commit", "fleet": "prod",
            "hosts": ["web-1"], "why": "proven-gain", "evidence": {"effect": 0.25}, "previous": previous,
        }  # fmt: skip
        body = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        previous = entry["hash"] = hashlib.sha256(body.encode()).hexdigest()
        with path.open("a") as file:
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")
    name = hashlib.sha256(f"{socket.gethostname()}:{path.resolve()}".encode()).hexdigest()[:16]
    Store(f"sqlite:///{folder}/.ratchet/ratchet.db").record_audit_head(name, entries=entries, digest=previous)
    return log


def test_an_earlier_version_s_log_verifies_and_goes_on(tmp_path: Path) -> None:
    log = old_log(tmp_path, 3)
    assert is_whole(log, 3)
    assert add(log) == 4
    assert is_whole(log, 4)
    assert log.verify().notes == []


def test_an_earlier_version_s_log_that_was_cut_shows_it_also_after_the_next_entry(tmp_path: Path) -> None:
    log = old_log(tmp_path, 3)
    path = tmp_path / ".ratchet/audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    for _ in range(2):
        assert "the end differs" in log.verify().findings[0].what
        add(log)


def test_a_log_that_the_database_does_not_know_is_not_called_whole(tmp_path: Path) -> None:
    _, path = make_log(tmp_path)
    (path.parent / "ratchet.db").unlink()
    other = log_of(tmp_path)
    assert "remembers nothing of this log" in other.verify().findings[0].what
    add(other)
    assert is_whole(log_of(tmp_path), 5)


ODD = [
    b"\xff\xfe\x00",
    b"",
    b"not JSON",
    b"{}",
    b"[]",
    b"7",
    b"null",
    b'{"number":1}',
    b"[" * 100_000,
    b'{"number":' + b"9" * 5000 + b"}",
    b"\x00" * 100,
    b"\xe2\x80\xa8\x0c\x1c",
]
FORGED: list[dict[str, Any]] = [
    {"number": "2"},
    {"number": True},
    {"number": 2.0},
    {"number": None},
    {"at": 1},
    {"hosts": "web-1"},
    {"hosts": [1]},
    {"hash": None},
    {"evidence": []},
    {"why": "\ud800 \x1b[2J"},
    {"more": 1},
    {"state": 1},
]


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("odd", [*ODD, *FORGED], ids=lambda odd: repr(odd)[:30])
def test_an_odd_line_is_told_with_its_number_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: bytes | dict[str, Any], at: int
) -> None:
    log, path = make_log(tmp_path)
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "inventory").mkdir()
    lines = path.read_bytes().splitlines(keepends=True)
    line = odd if isinstance(odd, bytes) else json.dumps(json.loads(lines[1]) | odd).encode()
    path.write_bytes(b"".join([*lines[:at], line + b"\n", *lines[at:]]))
    seen = log.verify()
    broken = odd == b'{"number":' + b"9" * 5000 + b"}"  # begins as a line of ours
    assert at + 1 in [finding.line for finding in (seen.notes if broken else seen.findings)]
    assert main(["--project", str(tmp_path), "audit", "verify"]) == (0 if broken else 3)
    assert main(["--project", str(tmp_path), "audit", "show"]) == 0
    assert main(["--project", str(tmp_path), "audit", "--output", "json"]) == 0
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert "\x1b" not in shown.out
    number = add(log)
    assert log.entries()[-1]["number"] == number


def test_a_log_that_cannot_be_written_or_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = log_of(tmp_path)
    (tmp_path / ".ratchet/audit.jsonl").mkdir()
    with pytest.raises(HostFailed, match="the audit log cannot be written: Is a directory"):
        add(log)
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "inventory").mkdir()
    assert main(["--project", str(tmp_path), "audit", "verify"]) == 2
    assert "the audit log cannot be read" in capsys.readouterr().err


def test_verify_says_so_with_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, path = make_log(tmp_path)
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "inventory").mkdir()
    assert main(["--project", str(tmp_path), "audit", "verify"]) == 0
    assert "whole: 4 entries" in capsys.readouterr().out
    path.write_text(path.read_text().replace("trial 2", "trial 9"))
    assert main(["--project", str(tmp_path), "audit", "verify"]) == 3
    assert "line 3: was edited" in capsys.readouterr().out
    assert main(["--project", str(tmp_path), "audit", "verify", "--output", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["whole"], told["entries"], told["findings"][0]["line"]) == (False, 4, 3)
