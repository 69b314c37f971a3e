"""`controller history` lists what is in runs/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli.main import main


def project_with(tmp_path: Path, **runs: dict[str, object]) -> Path:
    """A project folder with fleets `lab` and `web`; each run is given by its documents' texts."""
    (tmp_path / "ansible.cfg").write_text("")
    for fleet in ("lab", "web"):
        (tmp_path / "inventory" / fleet / "group_vars" / "all").mkdir(parents=True)
    for name, documents in runs.items():
        folder = tmp_path / "runs" / name.replace("_", "-")
        folder.mkdir(parents=True)
        for file, document in documents.items():
            text = document if isinstance(document, str) else json.dumps(document)
            (folder / file.replace("_", ".")).write_text(text)
    return tmp_path


def plan(run_id: str, fleet: str = "lab") -> dict[str, object]:
    return {
        "run_id": run_id,
        "fleet": fleet,
        "seed": 7,
        "created_at": "2026-11-23T20:15:00Z",
        "ratchet_version": "0.1.0",
        "hosts": ["lab-1"],
        "lease_seconds": 60,
        "alpha": 0.05,
        "trials": [],
    }


def verdict(run_id: str, fleet: str = "lab", status: str = "completed") -> dict[str, object]:
    trial = {
        "trial": 1,
        "experiment": "gzip-level",
        "variant": "level-4",
        "hosts": ["lab-1"],
        "verdict": "KEEP",
        "reason": "proven-gain",
        "objective": "p50",
        "design": "duet",
        "effect": {"estimate": 0.4, "low": 0.37, "high": 0.43},
        "confirmed_effect": {"estimate": 0.38, "low": 0.35, "high": 0.41},
        "evidence": 143.0,
        "threshold": 100.0,
        "pairs": 12,
        "requests": 2400,
        "errors": 0,
        "seconds": 31.0,
        "probing_seconds": 24.0,
    }
    return {
        "run_id": run_id,
        "fleet": fleet,
        "seed": 7,
        "status": status,
        "started_at": "2026-11-23T20:15:00Z",
        "seconds": 93.0,
        "trials": [trial],
        "baseline_before": {"lab-1": "0123456789abcdef"},
        "baseline_after": {"lab-1": "fedcba9876543210"},
    }


def history(project: Path, *arguments: str) -> int:
    return main(["--project", str(project), "history", *arguments])


def test_runs_are_listed_newest_first_with_what_they_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = project_with(
        tmp_path,
        r_1={"plan_json": plan("r-1"), "verdict_json": verdict("r-1")},
        r_2={"plan_json": plan("r-2", "web"), "verdict_json": verdict("r-2", "web", "failed")},
    )
    assert history(project) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["r-2", "web", "failed"]
    assert lines[2].split()[:3] == ["r-1", "lab", "completed"]
    assert "1 of 1: gzip-level/level-4" in lines[2]


def test_one_fleet_alone_can_be_listed_as_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = project_with(
        tmp_path, r_1={"verdict_json": verdict("r-1")}, r_2={"verdict_json": verdict("r-2", "web", "failed")}
    )
    assert history(project, "--fleet", "web", "--output", "json") == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["run_id"], run["status"], run["verdicts"][0]["verdict"]) == ("r-2", "failed", "KEEP")


def test_an_unfinished_run_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(project_with(tmp_path, r_1={"plan_json": plan("r-1")})) == 0
    assert "controller resume r-1" in capsys.readouterr().out


def test_a_damaged_run_is_pointed_at_and_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = project_with(tmp_path, r_1={"verdict_json": verdict("r-1")}, r_2={"verdict_json": "{"})
    assert history(project) == 0
    captured = capsys.readouterr()
    assert "r-1" in captured.out
    assert "r-2 is not listed" in captured.err


def test_without_runs_it_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(project_with(tmp_path)) == 0
    assert "controller optimize" in capsys.readouterr().out


def test_an_unknown_fleet_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(project_with(tmp_path), "--fleet", "lap") == 2
    assert "did you mean lab?" in capsys.readouterr().err
