"""A recorded run: its verdicts are recomputed, and what is told otherwise than its evidence and plan say is seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.model.project import Project
from controller.model.trial import TrialPlan, TrialResult
from controller.workflow.run.verify import _check_schedule, verify_run
from controller.workflow.trial import evidence

RUN = "r-20261201-121647-001d"
RECORDED = Path(__file__).parents[3] / "fixtures" / "runs" / RUN
KEPT, REVERTED = 0, 1


@pytest.fixture
def project(tmp_path: Path) -> Project:
    shutil.copytree(RECORDED, tmp_path / "runs" / RUN)
    return Project(tmp_path)


def told(project: Project, trial: int, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """What `verify` says of a trial whose element of verdict.json was changed."""
    path = project.runs / RUN / "verdict.json"
    document = json.loads(path.read_text())
    change(document["trials"][trial])
    path.write_text(json.dumps(document))
    found = verify_run(project, RUN)
    assert found["same"] is found["trials"][trial]["same"]
    row: dict[str, Any] = found["trials"][trial]
    return row


def test_a_recorded_run_gives_the_same_verdicts(project: Project) -> None:
    found = verify_run(project, RUN)
    assert [(row["recomputed"], row["same"]) for row in found["trials"]] == [
        ("KEEP proven-gain", True),
        ("REVERT slower", True),
    ]


@pytest.mark.parametrize("check", ["live", "soak"])
def test_a_keep_without_a_check_that_was_planned_is_not_the_same(project: Project, check: str) -> None:
    row = told(project, KEPT, lambda trial: trial.update({check: None}))
    assert (row["same"], row["note"]) == (False, f"proven without its {'live check' if check == 'live' else check}")


@pytest.mark.parametrize("check", ["live", "soak"])
@pytest.mark.parametrize(
    "change",
    [{"passed": False, "reason": "host-failed"}, {"passed": True, "reason": "host-failed"}, {"passed": False}],
)
def test_a_keep_whose_check_did_not_pass_is_not_the_same(
    project: Project, check: str, change: dict[str, object]
) -> None:
    row = told(project, KEPT, lambda trial: trial[check].update(change))
    assert not row["same"]
    assert "did not pass" in row["note"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variant", "other"),
        ("experiment", "other"),
        ("parameters", {"nginx_gzip_comp_level": 1}),
        ("parameters", {}),
        ("design", "switchback"),
        ("sockets_differ", True),
    ],
)
@pytest.mark.parametrize("trial", [KEPT, REVERTED])
def test_a_verdict_on_something_else_than_what_was_measured_is_not_the_same(
    project: Project, trial: int, name: str, value: object
) -> None:
    row = told(project, trial, lambda recorded: recorded.update({name: value}))
    assert not row["same"]
    assert f"{name} differs" in row["note"]


def test_hosts_that_did_not_measure_are_not_in_the_verdict(project: Project) -> None:
    row = told(project, REVERTED, lambda trial: trial["hosts"].append("lab-9"))
    assert (row["same"], row["note"]) == (False, "hosts that were not planned: lab-9")


def test_a_commit_that_failed_was_of_something_proven(project: Project) -> None:
    failed = {"verdict": "REVERT", "reason": "commit-failed"}
    assert told(project, KEPT, lambda trial: trial.update(failed))["same"]
    assert not told(project, REVERTED, lambda trial: trial.update(failed))["same"]


@pytest.mark.parametrize("number", [-1, 0, 46])
def test_a_pair_that_was_never_drawn_is_evidence_that_does_not_verify(project: Project, number: int) -> None:
    folder = project.runs / RUN / "trials/4"
    plan = TrialPlan.model_validate_json((folder / "plan.json").read_text())
    recorded = TrialResult.model_validate_json((folder / "settled.json").read_text())
    pairs = evidence.read_pairs(plan, folder, recorded.sequence, None)
    assert plan.timing.planned_pairs == 45
    _check_schedule(plan, pairs)
    with pytest.raises(evidence.EvidenceInvalid, match=f"pair {number} is none of the 45 that were planned"):
        _check_schedule(plan, [*pairs, pairs[0].model_copy(update={"number": number})])


@pytest.mark.parametrize("trial", [KEPT, REVERTED])
def test_an_objective_that_a_recorded_csv_has_no_column_for_is_named_with_the_column(
    project: Project, trial: int
) -> None:
    path = project.runs / RUN / "trials" / ("1", "4")[trial] / "plan.json"
    plan = json.loads(path.read_text())
    plan["experiment"]["objective"] = {"metric": "ttfb_p50", "minimum_effect": 0.03}
    path.write_text(json.dumps(plan))
    row = told(project, trial, lambda _: None)
    assert not row["same"]
    assert "lab-1: CSV line 1, header: no column first_byte_us, which the objective ttfb_p50" in row["note"]


def test_what_both_arms_required_is_part_of_what_was_kept(project: Project) -> None:
    path = project.runs / RUN / "trials" / "1" / "plan.json"
    plan = json.loads(path.read_text())
    plan["experiment"]["requires"] = {"nginx_gzip_vary": True}
    path.write_text(json.dumps(plan))
    assert told(project, KEPT, lambda trial: trial["parameters"].update(nginx_gzip_vary=True))["same"]
    assert not told(project, REVERTED, lambda trial: trial["parameters"].update(nginx_gzip_vary=True))["same"]
