"""The backup of docs/operating.md: taken in the middle of writes, it is a project's whole state."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from controller.adapters.audit import AuditLog
from controller.adapters.files.keys import ensure_fleet_key
from controller.adapters.secrets import sources
from controller.adapters.store import Store, database_url
from controller.cli.main import main
from controller.model.project import Project

PAGE = Path(__file__).parents[3] / "docs" / "operating.md"

# Who writes to database and audit log without a pause; the last run is under way.
WRITER = """
import sys
from pathlib import Path
from controller.adapters.audit import AuditLog
from controller.adapters.store import Store, database_url
from controller.model.project import Project

project = Project(Path(sys.argv[1]))
store = Store(database_url(project))
log = AuditLog(project, store)
number = 0
while True:
    number += 1
    store.record_run(run_id=f"r-{number}", fleet="web", status="running", started_at="2026", result="{}" * 2000)
    log.record(at="2026-12-01T00:00:00Z", action="commit", fleet="web", hosts=["web-1"], why="w" * 5000)
    if number == 20:
        print("busy", flush=True)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in sources("RATCHET_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "site/inventory/web/group_vars/all").mkdir(parents=True)
    (tmp_path / "site/ansible.cfg").write_text("")
    project = Project(tmp_path / "site")
    ensure_fleet_key(project, "web")
    return project


def test_a_copy_that_is_taken_while_everything_is_written_is_whole(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"<!-- backup: begin -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(project.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "busy\n"
        before = len(Store(database_url(project)).unfinished())
        subprocess.run(["bash", "-euc", found[1]], cwd=project.root, check=True, timeout=60)
    finally:
        writer.kill()
        writer.communicate()
    copy = project.root.parent / "ratchet-copy"
    assert copy.stat().st_mode & 0o777 == 0o700
    key = project.key_file("web").read_bytes()
    project.state.rename(project.root / "lost")
    copy.rename(project.state)
    database = sqlite3.connect(project.state / "ratchet.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert project.key_file("web").read_bytes() == key
    store = Store(database_url(project))
    assert len(store.unfinished()) >= before
    assert AuditLog(project, store).verify().findings == []
    assert len(AuditLog(project, store).entries()) >= 20
    assert main(["--project", str(project.root), "runs"]) == 0
    assert "next: controller resume r-1\n" in capsys.readouterr().out
    AuditLog(project, store).record(at="2026", action="end", fleet="web", hosts=[], why="the log goes on")
    assert AuditLog(project, store).verify().findings == []
