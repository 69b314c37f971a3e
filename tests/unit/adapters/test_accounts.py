"""What changes something is in the log before it begins, and what came of it after, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.audit import ENDED_RUN, Accounts, AuditLog, Entry, not_ended
from controller.adapters.store import Store
from controller.model.errors import HostFailed, Interrupted, RestoreUnverified
from controller.model.project import Project

PROCESS = """
import sys, time
from pathlib import Path
from controller.adapters.audit import Accounts, AuditLog
from controller.adapters.store import Store
from controller.model.project import Project
project = Project(Path(sys.argv[1]))
log = AuditLog(project, Store(f"sqlite:///{project.state}/ratchet.db"))
with Accounts(log, "web", lambda: "2026-11-24T00:00:00Z", print).account("destroy", ["web-1"], "asked for"):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def accounts(tmp_path: Path, told: list[str]) -> Accounts:
    project = Project(tmp_path)
    project.state.mkdir()
    log = AuditLog(project, Store(f"sqlite:///{project.state}/ratchet.db"))
    return Accounts(log, "web", lambda: "2026-11-24T00:00:00Z", told.append)


def said(entry: Entry) -> tuple[Any, ...]:
    return entry["action"], entry.get("state"), entry.get("began"), entry["hosts"], entry["why"]


def is_whole(accounts: Accounts) -> bool:
    return accounts.log.verify().findings == []


def test_the_intent_is_on_disk_before_the_change_and_the_outcome_after(accounts: Accounts, tmp_path: Path) -> None:
    with accounts.account("commit", ["web-2", "web-1"], "gzip/9: KEEP", {"run": "r-1"}) as outcome:
        on_disk = json.loads((tmp_path / ".ratchet/audit.jsonl").read_text())
        assert said(on_disk) == ("commit", "begun", None, ["web-1", "web-2"], "gzip/9: KEEP")
        outcome.what, outcome.hosts, outcome.evidence = "kept, verified", ["web-1"], {"baseline": "a"}
    begun, ended = accounts.log.entries()
    assert begun["evidence"] == {"run": "r-1"}
    assert said(ended) == ("commit", "ok", 1, ["web-1"], "kept, verified")
    assert ended["evidence"] == {"baseline": "a"}
    assert accounts.log.verify().notes == []
    assert is_whole(accounts)


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (HostFailed("nginx refuses", where="web-2", next_step="look"), "failed", "web-2: nginx refuses"),
        (RestoreUnverified("nobody knows"), "failed", "nobody knows"),
        (Interrupted("stopped by the operator"), "interrupted", "stopped by the operator"),
        (KeyboardInterrupt(), "interrupted", "by a signal"),
        (ValueError("postgresql://me:secret@db"), "failed", "ended by ValueError"),
        (SystemExit(1), "failed", "ended by SystemExit"),
    ],
)
def test_an_error_that_ends_it_is_its_outcome(accounts: Accounts, error: BaseException, state: str, why: str) -> None:
    with pytest.raises(type(error)) as raised, accounts.account("rollback", ["web-1"], "asked for"):
        raise error
    assert raised.value is error
    assert said(accounts.log.entries()[-1]) == ("rollback", state, 1, ["web-1"], why)
    assert is_whole(accounts)


def test_changes_within_changes_and_beside_each_other_are_told_apart(accounts: Accounts) -> None:
    other = Accounts(accounts.log, "db", accounts.now, accounts.tell)
    with accounts.account("optimize", ["web-1"], "x"), other.account("provision", ["db-1"], "x"):
        with accounts.account("commit", ["web-1"], "x"):
            pass
        assert not_ended(accounts.log.entries()) == {1, 2}
    assert [entry.get("began") for entry in accounts.log.entries()] == [None, None, None, 3, 2, 1]
    assert not_ended(accounts.log.entries()) == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_is_killed_in_the_middle_leaves_an_intent_which_is_no_tampering(
    accounts: Accounts, tmp_path: Path, number: signal.Signals
) -> None:
    with accounts.account("provision", ["web-1"], "x"):
        pass
    running = subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path)], stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(number)
    running.wait()
    for _ in range(2):
        seen = accounts.log.verify()
        assert seen.findings == []
        assert [note.line for note in seen.notes] == [3]
        assert "destroy of fleet web is not ended: under way, or killed" in seen.notes[0].what
        with accounts.account("provision", ["web-1"], "x"):
            pass


INTERRUPTED = """
import os, signal, sqlite3, sys, threading, time
from pathlib import Path
from controller.adapters.audit import Accounts, AuditLog
from controller.adapters.store import Store
from controller.model.project import Project
project = Project(Path(sys.argv[1]))
log = AuditLog(project, Store(f"sqlite:///{project.state}/ratchet.db"))
signal.signal(signal.SIGTERM, signal.default_int_handler)
# Another writer has the database: the entry waits for its head.
other = sqlite3.connect(project.state / "ratchet.db", isolation_level=None, check_same_thread=False)
other.execute("BEGIN EXCLUSIVE")
def interrupt():
    while not (project.state / "audit.jsonl").read_bytes().count(b"\\n") == 3:
        time.sleep(0.01)
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(0.2)
    other.execute("ROLLBACK")
threading.Thread(target=interrupt).start()
with Accounts(log, "web", lambda: "2026-11-24T00:00:00Z", print).account("destroy", ["web-1"], "asked for"):
    print("it was begun")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_the_intent_ends_the_change_and_is_its_outcome(
    accounts: Accounts, tmp_path: Path, number: signal.Signals
) -> None:
    with accounts.account("provision", ["web-1"], "x"):
        pass
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert "it was begun" not in done.stdout
    assert said(accounts.log.entries()[-1]) == ("destroy", "interrupted", 3, ["web-1"], "by a signal")
    assert accounts.log.verify().notes == []
    assert is_whole(accounts)


def test_a_run_that_is_resumed_to_its_end_ends_what_a_kill_had_broken_off(accounts: Accounts) -> None:
    def begin(action: str, run: str) -> None:
        record = accounts.log.record
        record(at="", action=action, fleet="web", hosts=[], why="", evidence={"run": run}, state="begun")

    begin("optimize", "r-1")
    begin("commit", "r-1")
    begin("optimize", "r-2")
    with pytest.raises(HostFailed), accounts.account("resume", ["web-1"], "x", {"run": "r-1"}):
        raise HostFailed("no database")
    assert not_ended(accounts.log.entries()) == {1, 2, 3}
    with accounts.account("resume", ["web-1"], "x", {"run": "r-1"}) as outcome:
        outcome.evidence = {ENDED_RUN: "r-1"}
    assert not_ended(accounts.log.entries()) == {3}


def no_log(tmp_path: Path) -> None:
    (tmp_path / ".ratchet/audit.jsonl").mkdir()


def test_what_cannot_be_accounted_for_is_not_begun(accounts: Accounts, tmp_path: Path) -> None:
    no_log(tmp_path)
    with pytest.raises(HostFailed, match="cannot be written"), accounts.account("commit", ["web-1"], "x"):
        pytest.fail("it was begun")


def test_a_way_back_is_gone_without_a_log_and_that_is_told(accounts: Accounts, tmp_path: Path, told: list[str]) -> None:
    no_log(tmp_path)
    gone = []
    with accounts.account("rollback", ["web-1"], "asked for", always=True):
        gone.append("web-1")
    assert gone == ["web-1"]
    missing = "is missing in the audit log: the audit log cannot be written: Is a directory"
    assert told == [f"rollback (begun: asked for) {missing}", f"rollback (ok: done) {missing}"]


def test_an_outcome_that_cannot_be_written_undoes_nothing(accounts: Accounts, tmp_path: Path, told: list[str]) -> None:
    log = tmp_path / ".ratchet/audit.jsonl"
    with accounts.account("commit", ["web-1"], "x"):
        log.rename(tmp_path / "kept")
        no_log(tmp_path)
    assert "commit (ok: done) is missing in the audit log" in told[0]
    log.rmdir()
    (tmp_path / "kept").rename(log)
    assert is_whole(accounts)
    assert not_ended(accounts.log.entries()) == {1}
