"""`controller resume` without a name: what cannot be resumed now keeps no other run from its turn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from controller.adapters.files.keys import ensure_fleet_key
from controller.adapters.store import FleetLock, Store, database_url
from controller.cli.main import main
from controller.model.project import Project
from controller.model.steps import RunRequest

HOSTS = "all: {hosts: {%s-1: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The fleets `old` and `new`, whose hosts are down, with an unfinished run each."""
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    project = Project(tmp_path / "site")
    for number, fleet in enumerate(("old", "new"), 1):
        assert main(["init", str(project.root), "--fleet", fleet, "--static"]) == 0
        ensure_fleet_key(project, fleet)
        (project.inventory(fleet) / "hosts.yml").write_text(HOSTS % fleet)
        project.known_hosts(fleet).write_text("")
        started_at = f"2026-01-0{number}T00:00:00Z"
        (project.runs / f"r-{fleet}").mkdir(parents=True)
        request = {"run_id": f"r-{fleet}", "started_at": started_at, "seed": 1, "experiments": []}
        (project.runs / f"r-{fleet}/request.json").write_text(json.dumps(request))
        Store(database_url(project)).record_run(
            run_id=f"r-{fleet}", fleet=fleet, status="running", started_at=started_at, result="{}"
        )
    return project


def unfinished(project: Project) -> list[str]:
    return [run_id for run_id, _, _ in Store(database_url(project)).unfinished()]


def test_a_run_that_is_alive_is_left_alone_and_the_next_one_is_ended(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    with FleetLock(project, "old", run_id="r-old", since="now"):
        assert main(["--project", str(project.root), "resume"]) == 4
    assert unfinished(project) == ["r-old"]
    assert json.loads((project.runs / "r-new/verdict.json").read_text())["status"] == "failed"
    said = capfd.readouterr().err
    assert "fleet old is held by run r-old" in said and said.index("resuming r-old") < said.index("resuming r-new")


GOOD = {"run_id": "r-old", "started_at": "2026-01-01T00:00:00Z", "seed": 1, "experiments": []}


def without(name: str) -> dict[str, object]:
    return {field: value for field, value in GOOD.items() if field != name}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"run_id": "r-old"}',
        *(json.dumps(without(name)) for name in GOOD),
        *(json.dumps(GOOD | {name: None}) for name in GOOD),
        json.dumps(GOOD | {"run_id": "r-new"}),
        json.dumps(GOOD | {"fleet": "new"}),
        json.dumps(GOOD | {"experiments": [1]}),
        json.dumps(GOOD | {"experiments": [{"name": "e"}]}),
        json.dumps(GOOD | {"strategy": "tournament"}),
        json.dumps(GOOD | {"budget": {"minutes": -1}}),
        json.dumps(GOOD | {"started_at": "x"}),
        json.dumps(GOOD | {"started_at": "2026-01-01T00:00:00"}),
    ],
)
def test_a_run_whose_input_is_damaged_or_anothers_is_told_what_ends_it(
    text: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.runs / "r-old/request.json").write_text(text)
    assert main(["--project", str(project.root), "resume", "r-old"]) == 2
    assert unfinished(project) == ["r-old", "r-new"]
    message = capsys.readouterr().err
    assert "r-old/request.json: the run's input" in message and "controller end r-old" in message


def test_a_run_whose_input_is_damaged_keeps_no_other_from_its_turn(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    (project.runs / "r-old/request.json").write_text("null")
    assert main(["--project", str(project.root), "resume"]) == 3
    assert unfinished(project) == ["r-old"]
    assert "controller end r-old" in capfd.readouterr().err


def test_what_lies_in_the_working_folder_is_not_run(project: Project) -> None:
    for name in ("argparse", "controller", "sitecustomize", "json"):
        (project.root / f"{name}.py").write_text("raise SystemExit(77)\n")
    program = Path(sys.executable).with_name("controller")
    done = subprocess.run(
        [program, "resume"], cwd=project.root, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 3, done.stderr
    assert unfinished(project) == []


@pytest.mark.parametrize("there", ["runs", "runs/r-old/log.jsonl"])
def test_what_is_in_the_way_of_a_runs_folder_is_bad_input(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.setattr("controller.cli.request.read_request", lambda *_: RunRequest.model_validate(GOOD))
    if there == "runs":
        project.runs.rename(project.root / "moved")
        project.runs.write_text("")
    else:
        (project.root / there).mkdir()
    assert main(["--project", str(project.root), "resume", "r-old"]) == 2
    assert f"{there}" in capsys.readouterr().err


def test_a_run_that_was_ended_while_it_was_looked_up_is_not_begun_again(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> RunRequest:
        Store(database_url(project)).record_run(
            run_id="r-old", fleet="old", status="failed", started_at="2026-01-01T00:00:00Z", result="{}"
        )
        return RunRequest.model_validate(GOOD)

    monkeypatch.setattr("controller.cli.request.read_request", ended)
    assert main(["--project", str(project.root), "resume", "r-old"]) == 2
    assert "no unfinished run r-old" in capsys.readouterr().err and unfinished(project) == ["r-new"]
    assert not (project.runs / "r-old/log.jsonl").exists()
