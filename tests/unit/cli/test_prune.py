"""`controller prune`: what it says, asks and refuses, and that what it deletes is really gone."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.secrets import sources
from controller.adapters.store import Store, database_url, record_result
from controller.cli.main import main
from controller.model.project import Project
from controller.model.run import RunResult
from controller.workflow import engine

RECORDED = Path(__file__).parents[2] / "fixtures" / "runs" / "r-20261201-121647-001d"
OLD, NEWER = "r-20200101-000000-000a", "r-20200102-000000-000b"

# A run's steps as the engine records them.
STEPS = """
import sys
from dbos import DBOS, DBOSConfiguredInstance
from controller.workflow import engine


@DBOS.dbos_class()
class Flow(DBOSConfiguredInstance):
    @DBOS.workflow(name="flow")
    def run(self, request):
        return engine.step("work", lambda: 1, int)


flow = Flow("flow")
with engine.launched(sys.argv[1], sys.argv[2]):
    engine.start(flow.run, sys.argv[2], {})()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Project:
    """With two runs of the fleet `web`, years ago."""
    for name in sources("RATCHET_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    if getattr(request, "param", "sqlite") == "postgresql":
        monkeypatch.setenv("RATCHET_DATABASE_URL", request.getfixturevalue("postgresql").url())
    (tmp_path / "ansible.cfg").write_text("")
    (tmp_path / "inventory/web/group_vars/all").mkdir(parents=True)
    project = Project(tmp_path)
    store = Store(database_url(project))
    for run_id in (OLD, NEWER):
        folder = project.runs / run_id
        shutil.copytree(RECORDED, folder)
        started = f"2020-01-{run_id[8:10]}T00:00:00Z"
        for name, time in (("plan.json", "created_at"), ("verdict.json", "started_at")):
            document = json.loads((folder / name).read_text()) | {"run_id": run_id, "fleet": "web", time: started}
            (folder / name).write_text(json.dumps(document))
        record_result(store, RunResult.model_validate_json((folder / "verdict.json").read_text()))
    return project


def prune(project: Project, *words: str) -> int:
    return main(["--project", str(project.root), "prune", *words])


def evidence(project: Project) -> dict[str, bool]:
    return {run_id: bool(list((project.runs / run_id).rglob("*.csv.gz"))) for run_id in (OLD, NEWER)}


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("project", ["sqlite", "postgresql"], indirect=True)
def test_what_is_deleted_is_gone_for_verify_and_still_shown(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run([sys.executable, "-c", STEPS, database_url(project), OLD], check=True, timeout=60)
    assert prune(project, "--keep", "1", "--yes") == 0
    out = capsys.readouterr().out
    assert f"delete the evidence of {OLD}: 36 files, " in out
    assert "delete the recorded steps of 1 runs" in out
    assert f"keep all of {NEWER}: one of the newest 1" in out
    assert "keep plans, verdicts, effects and settings of every run" in out
    assert evidence(project) == {OLD: False, NEWER: True}
    assert engine.recorded_workflows(database_url(project)) == []
    base = ["--project", str(project.root)]
    assert main([*base, "verify", OLD]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "its evidence was pruned on" in said and "by controller prune" in said and "NO" not in said
    assert main([*base, "verify", NEWER]) == 0
    capsys.readouterr()
    assert main([*base, "show", OLD]) == 0 and main([*base, "history"]) == 0
    assert "KEEP gzip-level/level-4" in " ".join(capsys.readouterr().out.split())
    assert prune(project, "--keep", "1", "--yes") == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_a_run_that_was_pruned_in_part_is_called_edited_where_the_rest_is(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(project, "--keep", "0", "--yes") == 0
    shutil.copytree(RECORDED / "trials/1", project.runs / OLD / "trials/1", dirs_exist_ok=True)
    assert main(["--project", str(project.root), "verify", OLD]) == 2
    edited = project.runs / OLD / "trials/1/lab-1.csv.gz"
    edited.write_bytes(edited.read_bytes()[:100])
    capsys.readouterr()
    assert main(["--project", str(project.root), "verify", OLD]) == 3
    assert "NOT every verdict is the same" in capsys.readouterr().out


def test_a_dry_run_says_the_same_and_changes_nothing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(project, "--keep", "1", "--dry-run", "--output", "json") == 0
    dry = told(capsys)
    assert evidence(project) == {OLD: True, NEWER: True} and not (project.state / "audit.jsonl").exists()
    assert prune(project, "--keep", "1", "--yes", "--output", "json") == 0
    done = told(capsys)
    assert (dry.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert dry == done
    (fleet,) = done["fleets"]
    assert list(fleet["evidence"]) == [OLD] and fleet["kept"] == {NEWER: "one of the newest 1"}
    assert done["bytes"] == fleet["evidence"][OLD]["bytes"] > 100_000


@pytest.mark.parametrize(
    ("words", "deleted"),
    [([], False), (["--keep", "0"], True), (["--keep", "0", "--older-than", "36500"], False)],
)
def test_by_default_the_newest_ten_and_those_of_ninety_days_stay(
    project: Project, words: list[str], deleted: bool
) -> None:
    assert prune(project, "--yes", *words) == 0
    assert evidence(project) == dict.fromkeys((OLD, NEWER), not deleted)


@pytest.mark.parametrize(
    "words",
    [
        ["--older-than", "-1"],
        ["--older-than", "soon"],
        ["--older-than", "1.5"],
        ["--older-than", "36501"],
        ["--older-than", "٣"],
        ["--keep", "-1"],
        ["--keep", ""],
    ],
)
def test_a_bad_value_is_bad_input(project: Project, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        prune(project, "--yes", *words)
    assert caught.value.code == 2
    assert "is no whole number from 0 to" in capsys.readouterr().err
    assert evidence(project) == {OLD: True, NEWER: True}


def test_without_a_terminal_it_deletes_nothing_unless_told_to(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert prune(project, "--keep", "0") == 2
    assert "controller prune --yes" in capsys.readouterr().err
    assert evidence(project) == {OLD: True, NEWER: True}


@pytest.mark.parametrize(("typed", "deleted"), [("yes", True), ("y", False), ("", False)])
def test_it_asks_on_a_terminal(project: Project, typed: str, deleted: bool) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "controller", "--project", str(project.root), "prune", "--keep", "0"]
    with subprocess.Popen(command, stdin=theirs, stdout=-1, stderr=-1, text=True) as process:
        os.write(ours, f"{typed}\n".encode())
        _, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "Delete this for good?" in err
    assert process.returncode == (0 if deleted else 2), err
    assert evidence(project) == dict.fromkeys((OLD, NEWER), not deleted)


def test_what_a_killed_one_has_left_of_a_folder_goes_with_the_next(project: Project) -> None:
    left = project.runs / f".pruned-{OLD}"
    (left / "trials").mkdir(parents=True)
    assert prune(project, "--dry-run") == 0 and left.exists()
    assert prune(project, "--yes") == 0 and not left.exists()
