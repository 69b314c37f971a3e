"""`controller experiments` lists, checks, and publishes the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from controller.cli.main import main
from controller.model.project import bundle

GOOD: dict[str, Any] = {
    "question": "Does a lighter level answer sooner?",
    "why": "Level 9 costs CPU.",
    "risk": {"level": "low", "note": "larger responses"},
    "sources": ["a page"],
    "variants": [{"name": "level-4", "parameters": {"nginx_gzip_comp_level": 4}}],
    "workload": {"rate": 100, "requests": [{"path": "/"}]},
}


def project_with(tmp_path: Path, **experiments: dict[str, Any]) -> Path:
    (tmp_path / "ansible.cfg").write_text("")
    (tmp_path / "inventory").mkdir()
    (tmp_path / "experiments").mkdir()
    for name, document in experiments.items():
        (tmp_path / "experiments" / name).mkdir()
        (tmp_path / "experiments" / name / "meta.json").write_text(json.dumps(document))
    return tmp_path


def experiments(project: Path, *arguments: str) -> int:
    return main(["--project", str(project), "experiments", *arguments])


def test_the_list_tells_name_question_variants_and_risk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = project_with(tmp_path, gzip=GOOD)
    assert experiments(project, "list") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "gzip Does a lighter level answer sooner? level-4 low" in text
    assert experiments(project, "list", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["experiments"][0]["variants"] == ["level-4"]


def test_every_problem_is_told_on_its_own_line_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = GOOD | {"variants": [{"name": "a", "parameters": {"nginx_gzip_comp_levle": 4}}]}
    outside = GOOD | {"variants": [{"name": "a", "parameters": {"nginx_gzip_comp_level": 44}}]}
    project = project_with(tmp_path, good=GOOD, field=GOOD | {"colour": 1}, outside=outside, unknown=unknown)
    assert experiments(project, "check") == 2
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["good"] == "ok, 1 variant"
    assert "colour" in lines["field"]
    assert "nginx_gzip_comp_level" in lines["outside"]
    assert "did you mean nginx_gzip_comp_level?" in lines["unknown"]
    assert all("meta.json:" in lines[name] for name in ("field", "outside", "unknown"))


def test_named_experiments_are_checked_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = project_with(tmp_path, good=GOOD, bad={})
    assert experiments(project, "check", "good") == 0
    assert experiments(project, "check", "goods") == 2
    assert "did you mean good?" in capsys.readouterr().out


def test_a_shipped_experiment_may_be_named_beside_a_projects_own_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = project_with(tmp_path, **{"gzip-level": GOOD | {"question": "Is this my own one?"}})
    assert experiments(project, "check", "thread-pool", "gzip-level") == 0
    assert experiments(project, "list") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Is this my own one?" in text
    assert "run when named:" in text
    assert "thread-pool" in text.partition("run when named:")[2]
    assert "gzip-level" not in text.partition("run when named:")[2]


def test_a_folder_without_experiments_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert experiments(project_with(tmp_path), "check") == 2
    assert "there are no experiments" in capsys.readouterr().err


def test_the_schema_accepts_what_the_model_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    validator.validate(GOOD)
    validator.validate(GOOD | {"$schema": "../schema.json", "name": "gzip"})
    for shipped in (bundle() / "experiments").glob("*/meta.json"):
        validator.validate(json.loads(shipped.read_text()))
    for bad in (GOOD | {"colour": 1}, {key: value for key, value in GOOD.items() if key != "risk"}):
        assert not validator.is_valid(bad)
