"""The index of runs and baselines, on SQLite and on PostgreSQL, and the lock of a fleet on one machine."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.store import FleetLock, Store, database_url
from controller.model.errors import BadInput, FleetLocked, HostFailed
from controller.model.project import Project


def test_a_run_is_unfinished_until_it_is_sealed(store: Store) -> None:
    store.record_run(run_id="r-1", fleet="prod", status="running", started_at="2026", result="{}")
    assert store.unfinished() == [("r-1", "prod", "2026")]
    store.record_run(run_id="r-1", fleet="prod", status="completed", started_at="2026", result="{}")
    assert store.unfinished() == []


def test_recording_a_baseline_twice_leaves_one(store: Store) -> None:
    for configuration in ("a", "a", "b"):
        store.record_baseline(fleet="prod", host="web-1", configuration=configuration, run_id="r-1", recorded_at="2026")
    assert [baseline.configuration for baseline in store.baselines("prod").values()] == ["b"]


def test_a_forgotten_host_has_no_baseline_and_others_keep_theirs(store: Store) -> None:
    for fleet in ("prod", "lab"):
        store.record_baseline(fleet=fleet, host="web-1", configuration="a", run_id="r-1", recorded_at="2026")
    store.record_baseline(fleet="prod", host="web-2", configuration="a", run_id="r-1", recorded_at="2026")
    store.forget("prod", ["web-1"])
    assert set(store.baselines("prod")) == {"web-2"}
    assert set(store.baselines("lab")) == {"web-1"}


def test_what_is_recorded_is_there_for_the_next_command(database: str) -> None:
    Store(database).record_audit_head("a", entries=3, digest="d")
    assert Store(database).audit_head("a") == (3, "d")
    assert Store(database).audit_head("b") is None


def test_a_database_that_cannot_be_opened_is_bad_input_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        Store(f"sqlite:///{tmp_path}/none/r.db")
    assert "cannot be opened" in str(caught.value)
    with pytest.raises(BadInput) as caught:
        Store("nonsense://user:hunter2@127.0.0.1/x")
    assert "hunter2" not in str(caught.value)


def test_a_database_that_is_locked_by_another_writer_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="controller.adapters.store")
    url = f"sqlite:///{tmp_path}/r.db"
    store = Store(url)
    program = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('begin exclusive');"
        "print('locked', flush=True); time.sleep(1.5); c.execute('commit')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "r.db")], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "locked\n"
        store.record_run(run_id="r-1", fleet="prod", status="running", started_at="2026", result="{}")
    assert len(store.unfinished()) == 1
    assert re.findall(r"a transaction took 1\.\d s", caplog.text)


def test_the_name_of_a_postgresql_database_chooses_the_driver_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_DATABASE_URL", "postgres://ratchet@db.example/x")
    assert database_url(Project(tmp_path)) == "postgresql+psycopg://ratchet@db.example/x"


def test_a_second_run_is_told_who_holds_the_fleet(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with (
        FleetLock(project, "prod", run_id="r-1", since="2026-11-24T00:00:00Z"),
        pytest.raises(FleetLocked, match=r"held by run r-1 of .* since 2026-11-24T00:00:00Z"),
        FleetLock(project, "prod", run_id="r-2", since="later"),
    ):
        pass
    with FleetLock(project, "prod", run_id="r-2", since="later"):
        pass


def test_the_holder_can_be_asked_for_without_taking_the_lock(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert FleetLock.holder(project, "prod") is None
    with FleetLock(project, "prod", run_id="r-1", since="x"):
        holder = FleetLock.holder(project, "prod")
        assert holder is not None
        assert holder.run_id == "r-1"
    assert FleetLock.holder(project, "prod") is None


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import sys, os; from pathlib import Path; from controller.adapters.store import FleetLock;"
        "from controller.model.project import Project;"
        "FleetLock(Project(Path(sys.argv[1])), 'prod', run_id='r-1', since='x').__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    with FleetLock(Project(tmp_path), "prod", run_id="r-2", since="later"):
        pass


def test_a_holder_is_named_by_its_lock_file_in_this_boot(tmp_path: Path) -> None:
    """So that who gets the lock may call an earlier holder of the same name dead, and nobody else's."""

    def names() -> Iterator[str]:
        for folder, fleet in (("laptop", "prod"), ("laptop", "prod"), ("laptop", "lab"), ("other", "prod")):
            with FleetLock(Project(tmp_path / folder), fleet, run_id="r-1", since="x") as lock:
                yield lock.name

    first, again, *others = names()
    assert first == again
    assert len({first, *others}) == 3


def test_a_quarantine_is_recorded_once_until_it_ends(store: Store) -> None:
    for why in ("unreachable", "disk full"):
        store.quarantine(fleet="prod", host="web-1", why=why, run_id="r-1", since="2026")
    assert [each.why for each in store.quarantined("prod").values()] == ["disk full"]
    store.end_quarantine(fleet="prod", host="web-1")
    assert store.quarantined("prod") == {}


@pytest.mark.parametrize("odd", ["why?a", "p%41b", "file:x", "h#x", "a&b=c", "plain dir", "ü", "plain"])
def test_each_project_has_its_own_database_whatever_its_path_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    first, second = Project(tmp_path / odd), Project(tmp_path / f"{odd}2")
    Store(database_url(first)).record_run(run_id="r-1", fleet="a", status="running", started_at="2026", result="{}")
    assert (first.state / "ratchet.db").is_file()
    assert Store(database_url(second)).unfinished() == []


def test_the_database_of_an_ordinary_path_has_the_address_that_it_always_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    assert database_url(Project(tmp_path)) == f"sqlite:///{tmp_path}/.ratchet/ratchet.db"


def test_words_of_hosts_that_no_database_takes_are_kept_as_far_as_they_can_be(store: Store) -> None:
    store.quarantine(
        fleet="prod", host="web-1", why='unknown "\udcff" \0 directive, größer', run_id="r-1", since="2026"
    )
    assert store.quarantined("prod")["web-1"].why == 'unknown "?" \ufffd directive, größer'
    store.record_baseline(fleet="prod", host="web\udcff", configuration="a", run_id="r-1", recorded_at="2026")
    store.forget("prod", ["web\udcff"])
    assert store.baselines("prod") == {}


def test_who_only_looks_keeps_nobody_from_the_work(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with FleetLock(project, "prod", run_id="r-1", since="x"):
        pass
    # As `holder` has it for a moment.
    looking = os.open(project.state / "locks/prod", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.3, os.close, [looking]).start()
    with FleetLock(project, "prod", run_id="r-2", since="x"):
        held = FleetLock.holder(project, "prod")
    assert held is not None and held.run_id == "r-2"


def test_a_lock_that_cannot_be_written_is_told_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patches:
        patches.setattr(os, "pwrite", full)
        with pytest.raises(HostFailed, match="No space left on device"), FleetLock(project, "a", run_id="r", since="x"):
            pass
    with FleetLock(project, "a", run_id="r-2", since="x"):
        pass
    (project.state / "locks" / "b").mkdir()
    with pytest.raises(BadInput, match="a folder is in the place"), FleetLock(project, "b", run_id="r", since="x"):
        pass
