"""Databases of earlier versions are upgraded when they are opened, whole or not at all; a newer one is refused."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from controller.adapters.store import Store, open_commits, schema
from controller.adapters.store.tables import commits, metadata, runs
from controller.adapters.store.tables import schema as versions
from controller.cli.main import main
from controller.model.commit import Commit
from controller.model.errors import BadInput

NEWEST = len(schema.STEPS)

RUNS = """
CREATE TABLE ratchet_runs (
  run_id VARCHAR(64) NOT NULL PRIMARY KEY, fleet VARCHAR(64) NOT NULL, status VARCHAR(16) NOT NULL,
  started_at VARCHAR(40) NOT NULL, result TEXT NOT NULL);
CREATE INDEX ix_ratchet_runs_fleet ON ratchet_runs (fleet);
CREATE TABLE ratchet_baselines (
  fleet VARCHAR(64) NOT NULL, host VARCHAR(253) NOT NULL, configuration VARCHAR(16) NOT NULL,
  run_id VARCHAR(64) NOT NULL, recorded_at VARCHAR(40) NOT NULL, PRIMARY KEY (fleet, host));
"""
HELD = """
CREATE TABLE ratchet_audit_heads (
  log VARCHAR(16) NOT NULL PRIMARY KEY, entries VARCHAR(20) NOT NULL, digest VARCHAR(64) NOT NULL);
CREATE TABLE ratchet_fleet_holders (
  fleet VARCHAR(64) NOT NULL PRIMARY KEY, name VARCHAR(160) NOT NULL, run_id VARCHAR(64) NOT NULL,
  pid INTEGER NOT NULL, "user" VARCHAR(64) NOT NULL, machine VARCHAR(255) NOT NULL, since VARCHAR(40) NOT NULL,
  expires FLOAT(53) NOT NULL);
CREATE TABLE ratchet_quarantine (
  fleet VARCHAR(64) NOT NULL, host VARCHAR(253) NOT NULL, why TEXT NOT NULL, run_id VARCHAR(64) NOT NULL,
  since VARCHAR(40) NOT NULL, PRIMARY KEY (fleet, host));
CREATE TABLE ratchet_generations (fleet VARCHAR(64) NOT NULL PRIMARY KEY, generation INTEGER NOT NULL);
"""
COMMITS = """
CREATE TABLE ratchet_commits (
  commit_id VARCHAR(80) NOT NULL PRIMARY KEY, fleet VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL,
  started_at VARCHAR(40) NOT NULL, document TEXT NOT NULL);
CREATE INDEX ix_ratchet_commits_fleet ON ratchet_commits (fleet);
"""
# Of all tables at once, as they were before they had a version.
FENCED = COMMITS.replace("document TEXT", "generation INTEGER NOT NULL, document TEXT")
SHAPES = {
    "first": RUNS,
    "before commits": RUNS + HELD,
    "before generation": RUNS + HELD + COMMITS,
    "before versions": RUNS + HELD + FENCED,
}

COMMIT = Commit(
    commit_id="r-1/1", fleet="web", run_id="r-1", why="the commit of gzip/l4", started_at="2026-11-01T00:00:00Z",
    before={"web-1": "a" * 16}, after={"web-1": "b" * 16}, kept_before="", kept_after="",
)  # fmt: skip


def made(url: str, shape: str) -> sa.Engine:
    """A database as an earlier version has left it: an ended run, one that is under way, a baseline, an open commit."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in SHAPES[shape].split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        insert = sa.text("INSERT INTO ratchet_runs VALUES (:run_id, 'web', :status, '2026-11-01T00:00:00Z', :result)")
        connection.execute(insert, {"run_id": "r-1", "status": "completed", "result": "{}"})
        connection.execute(insert, {"run_id": "r-2", "status": "running", "result": "{}"})
        connection.exec_driver_sql("INSERT INTO ratchet_baselines VALUES ('web', 'web-1', 'aaaa', 'r-1', '2026-11-01')")
        if "ratchet_commits" in SHAPES[shape]:
            fenced = {"generation": 7} if shape == "before versions" else {}
            row = {"commit_id": "r-1/1", "fleet": "web", "state": "confirming", "started_at": "2026-11-01"}
            connection.execute(sa.insert(commits), row | fenced | {"document": COMMIT.model_dump_json()})
    return engine


def columns(engine: sa.Engine) -> dict[str, dict[str, bool]]:
    inspector = sa.inspect(engine)
    return {
        table: {column["name"]: column["nullable"] for column in inspector.get_columns(table)}
        for table in inspector.get_table_names()
        if table.startswith("ratchet_")
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_a_database_of_any_earlier_version_becomes_as_a_new_one_and_keeps_what_it_holds(
    database: str, shape: str
) -> None:
    engine = made(database, shape)
    store = Store(database)
    assert f"upgraded from version 0 to {NEWEST}" in store.upgraded
    assert columns(engine) == {
        table.name: {column.name: bool(column.nullable) for column in table.columns}
        for table in metadata.tables.values()
    }
    assert store.unfinished() == [("r-2", "web", "2026-11-01T00:00:00Z")]
    assert store.baselines("web")["web-1"].configuration == "aaaa"
    with store.transaction() as connection:
        generations = connection.execute(sa.select(commits.c.generation)).scalars().all()
    if "ratchet_commits" in SHAPES[shape]:
        assert open_commits(store, "web") == [COMMIT]
        assert generations == [7 if shape == "before versions" else 0]
    assert Store(database).upgraded == ""


def test_a_new_database_is_of_the_newest_version_and_nothing_is_told(database: str) -> None:
    store = Store(database)
    assert store.upgraded == ""
    with store.transaction() as connection:
        assert connection.execute(sa.select(versions.c.version)).scalars().all() == [NEWEST]


@pytest.mark.parametrize("shape", ["before versions", None])
def test_of_controllers_that_start_at_once_one_upgrades(database: str, shape: str | None) -> None:
    if shape:
        made(database, shape)
    begin, told = threading.Barrier(4), []

    def start() -> None:
        begin.wait()
        told.append(Store(database).upgraded)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 4 and len([text for text in told if text]) == (1 if shape else 0)
    with Store(database).transaction() as connection:
        assert connection.execute(sa.select(versions.c.version)).scalars().all() == [NEWEST]


def test_an_upgrade_that_fails_at_its_last_step_leaves_the_database_as_it_was(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = made(database, "before generation")
    before = columns(engine)

    def fail(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT 1 FROM nowhere"))

    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, fail))
    with pytest.raises(BadInput, match=f"is of version 0, and could not be upgraded to {NEWEST + 1}: .*nowhere"):
        Store(database)
    assert columns(engine) == before
    monkeypatch.undo()
    assert Store(database).upgraded


def test_a_database_of_a_newer_version_is_refused_with_who_wrote_it_and_is_not_touched(database: str) -> None:
    store = Store(database)
    with store.transaction() as connection:
        connection.execute(sa.update(versions).values(version=NEWEST + 1, written_by="7.8.9"))
    with pytest.raises(BadInput) as caught:
        Store(database)
    assert f"of version {NEWEST + 1}, written by Ratchet 7.8.9" in str(caught.value)
    assert "use Ratchet 7.8.9 or newer" in str(caught.value)
    with store.transaction() as connection:
        assert connection.execute(sa.select(versions)).all() == [(NEWEST + 1, "7.8.9")]


def test_a_database_that_cannot_be_written_is_read_and_is_upgraded_once_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "ratchet.db"
    only_read = f"sqlite:///file:{path}?mode=ro&uri=true"
    made(f"sqlite:///{path}", "before versions")
    with pytest.raises(BadInput, match=r"is of version 0, and could not be upgraded to .*: .*readonly"):
        Store(only_read)
    assert Store(f"sqlite:///{path}").upgraded
    assert [run[0] for run in Store(only_read).unfinished()] == ["r-2"]


def test_a_full_disk_leaves_an_older_database_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ratchet.db"
    engine = made(f"sqlite:///{path}", "before versions")
    before, size = columns(engine), path.stat().st_size
    program = "import sys; from controller.adapters.store import Store; Store(sys.argv[1])"

    def no_more_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{path}"], capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=no_more_room,
    )  # fmt: skip
    assert "could not be upgraded" in done.stderr and "is of version 0" in done.stderr
    assert columns(engine) == before
    assert Store(f"sqlite:///{path}").upgraded


def test_a_command_says_once_that_it_has_upgraded_and_refuses_a_newer_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    (tmp_path / "ansible.cfg").write_text("")
    (tmp_path / "inventory").mkdir()
    (tmp_path / ".ratchet").mkdir()
    url = f"sqlite:///{tmp_path}/.ratchet/ratchet.db"
    engine = made(url, "before generation")
    command = ["--project", str(tmp_path), "runs", "--output", "json"]
    for said in (f"controller: the database {url} was upgraded from version 0 to {NEWEST}\n", ""):
        assert main(command) == 0
        told = capsys.readouterr()
        assert told.err == said
        assert [run["run_id"] for run in json.loads(told.out)] == ["r-2"]
    with engine.begin() as connection:
        connection.execute(sa.update(versions).values(version=NEWEST + 1, written_by="7.8.9"))
    assert main(command) == 2
    assert "written by Ratchet 7.8.9" in capsys.readouterr().err


def test_runs_of_an_earlier_version_are_on_record_as_they_were(database: str) -> None:
    made(database, "first")
    store = Store(database)
    with store.transaction() as connection:
        found = connection.execute(sa.select(runs.c.run_id, runs.c.status, runs.c.result).order_by(runs.c.run_id)).all()
    assert [tuple(row) for row in found] == [("r-1", "completed", "{}"), ("r-2", "running", "{}")]
