"""The audit log shows every edit, deletion and reordering."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.audit import AuditLog
from controller.adapters.store import Store
from controller.cli.main import main
from controller.model.project import Project


def make_log(folder: Path, entries: int = 4) -> tuple[AuditLog, Path]:
    project = Project(folder)
    project.state.mkdir(exist_ok=True)
    log = AuditLog(project, Store(f"sqlite:///{project.state}/ratchet.db"))
    for number in range(entries):
        log.record(
            at=f"2026-11-24T00:00:0{number}Z",
            action="commit",
            fleet="prod",
            hosts=["web-2", "web-1"],
            why=f"trial {number}: proven-gain",
            evidence={"run": "r-1", "effect": 0.25},
        )
    return log, project.state / "audit.jsonl"


def test_an_untouched_log_is_whole_and_private(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    assert log.verify() == []
    assert [entry["number"] for entry in log.entries()] == [1, 2, 3, 4]
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_projects_may_share_a_database(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/shared.db")
    logs = []
    for name, entries in (("one", 1), ("two", 3)):
        (tmp_path / name).mkdir()
        logs.append(AuditLog(Project(tmp_path / name), store))
        for _ in range(entries):
            logs[-1].record(at="2026-11-24T00:00:00Z", action="commit", fleet=name, hosts=["web-1"], why="proven-gain")
    assert [log.verify() for log in logs] == [[], []]
    (tmp_path / "two/.ratchet/audit.jsonl").unlink()
    assert logs[0].verify() == []
    assert "the end differs" in logs[1].verify()[0].what


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditLog, Path, str]:
    log, path = make_log(tmp_path_factory.mktemp("whole"))
    return log, path, path.read_text()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_edit_deletion_or_reordering_shows(whole: tuple[AuditLog, Path, str], data: st.DataObject) -> None:
    log, path, text = whole
    lines = text.splitlines(keepends=True)
    kind = data.draw(st.sampled_from(["edit", "delete", "swap", "duplicate", "cut"]))
    at = data.draw(st.integers(0, len(lines) - 1))
    if kind == "edit":
        entry = json.loads(lines[at])
        field = data.draw(st.sampled_from(["at", "who", "action", "why", "fleet"]))
        entry[field] += "x"
        lines[at] = json.dumps(entry) + "\n"
    elif kind == "delete":
        del lines[at]
    elif kind == "duplicate":
        lines.insert(at, lines[at])
    elif kind == "cut":
        lines[-1] = lines[-1][: data.draw(st.integers(1, len(lines[-1]) - 2))]
    else:
        other = (at + 1) % len(lines)
        lines[at], lines[other] = lines[other], lines[at]
    path.write_text("".join(lines))
    assert log.verify() != []


def test_a_torn_last_line_does_not_swallow_the_next_entry(tmp_path: Path) -> None:
    log, path = make_log(tmp_path)
    path.write_text(path.read_text() + '{"number": 5, "at"')
    log.record(at="later", action="rollback", fleet="prod", hosts=["web-1"], why="asked for")
    assert [entry["action"] for entry in log.entries()] == ["commit"] * 4 + ["rollback"]
    assert [finding.line for finding in log.verify()] == [5]


def test_verify_says_so_with_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, path = make_log(tmp_path)
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "inventory").mkdir()
    assert main(["--project", str(tmp_path), "audit", "verify"]) == 0
    assert "whole: 4 entries" in capsys.readouterr().out
    path.write_text(path.read_text().replace("trial 2", "trial 9"))
    assert main(["--project", str(tmp_path), "audit", "verify"]) == 3
    assert "line 3: was edited" in capsys.readouterr().out
