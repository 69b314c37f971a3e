"""`controller show RUN` tells one run in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.store import Store, database_url, record_commit
from controller.cli.main import main
from controller.model.commit import Commit
from controller.model.experiment import Experiment, Request, Risk, Variant, Workload
from controller.model.project import Project
from controller.model.run import RunPlan, RunResult
from controller.model.trial import Effect, LiveCheck, TrialPlan, TrialResult, TrialTiming

RUN = "r-20261123-201500-3fa9"


def planned() -> RunPlan:
    experiment = Experiment(
        name="gzip-level",
        question="Does a lighter level answer sooner?",
        why="Level 9 costs CPU.",
        risk=Risk(level="low", note="larger responses"),
        sources=["a page"],
        variants=[Variant(name="level-4", parameters={"nginx_gzip_comp_level": 4})],
        workload=Workload(rate=100, requests=[Request(path="/")]),
    )
    trial = TrialPlan(
        number=1,
        experiment=experiment,
        variant=experiment.variants[0],
        design="duet",
        timing=TrialTiming.of(experiment.timing, "duet"),
        hosts=["lab-1"],
        seed=7,
        alpha=0.05,
        variants_in_run=1,
    )
    return RunPlan(
        run_id=RUN,
        fleet="lab",
        seed=7,
        created_at="2026-11-23T20:15:00Z",
        ratchet_version="0.1.0",
        hosts=["lab-1"],
        lease_seconds=60,
        alpha=0.05,
        trials=[trial],
    )


def sealed() -> RunResult:
    trial = TrialResult(
        trial=1,
        experiment="gzip-level",
        variant="level-4",
        hosts=["lab-1"],
        verdict="REVERT",
        reason="guardrail-p99",
        note="p99 is 2.4 x control's (limit 2)",
        objective="p50",
        design="duet",
        effect=Effect(estimate=0.4, low=0.37, high=0.43),
        confirmed_effect=None,
        live=LiveCheck(passed=True, effect=None, pairs=1),
        evidence=143.0,
        threshold=100.0,
        pairs=12,
        requests=2400,
        errors=0,
        seconds=31.0,
        probing_seconds=24.0,
        parameters={"nginx_gzip_comp_level": 4, "nginx_gzip_types": ["text/css"]},
    )
    return RunResult(
        run_id=RUN,
        fleet="lab",
        seed=7,
        status="completed",
        started_at="2026-11-23T20:15:00Z",
        seconds=93.0,
        trials=[trial],
        baseline_before={"lab-1": "0123456789abcdef"},
        baseline_after={"lab-1": "0123456789abcdef"},
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "ansible.cfg").write_text("")
    (tmp_path / "inventory" / "lab" / "group_vars").mkdir(parents=True)
    folder = tmp_path / "runs" / RUN
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(planned().model_dump_json())
    (folder / "verdict.json").write_text(sealed().model_dump_json())
    return tmp_path


def show(project: Path, *arguments: str) -> int:
    return main(["--project", str(project), "show", *arguments])


@pytest.mark.parametrize("reference", [RUN, "r-2026", "last"])
def test_a_run_is_told_with_every_trials_reason_effect_and_parameters(
    project: Path, capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    assert show(project, reference) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        f"run {RUN} fleet lab completed",
        "REVERT gzip-level/level-4",
        "Does a lighter level answer sooner?",
        "took more than twice the control's: p99 is 2.4 x control's",
        "p50 40.0 % lower (37.0 to 43.0 %)",
        "143 of 100, 12 pairs, duet",
        "no harm on the live instance",
        'nginx_gzip_types: ["text/css"]',
        "0123456789abcdef, unchanged",
        f"controller verify {RUN}",
    ):
        assert words in text


def test_the_document_holds_plan_and_result(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(project, "last", "--output", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert RunPlan.model_validate(document["plan"]) == planned()
    assert RunResult.model_validate(document["result"]) == sealed()


def test_a_run_is_told_with_its_log_if_it_has_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for log in (None, f"runs/{RUN}/controller.log"):
        if log is not None:
            (project / log).write_text("")
        assert show(project, "last") == 0
        assert (f"log: runs/{RUN}/controller.log" in capsys.readouterr().out) is (log is not None)
        assert show(project, "last", "--output", "json") == 0
        assert json.loads(capsys.readouterr().out)["log"] == log


def test_an_unfinished_run_says_so_and_what_to_type(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "runs" / RUN / "verdict.json").unlink()
    assert show(project, "last") == 0
    text = capsys.readouterr().out
    assert "unfinished" in text
    assert f"controller resume {RUN}" in text
    assert show(project, "last", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["result"] is None


def test_an_unknown_run_is_bad_input_with_a_next_step(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(project, "r-1999") == 2
    message = capsys.readouterr().err
    assert "unknown run" in message
    assert "next:" in message


@pytest.mark.parametrize(
    ("number", "update", "words"),
    [
        (1, {"state": "done", "confirmed": ["lab-1", "lab-2"]}, "commit confirmed on lab-1, lab-2"),
        (
            1,
            {"state": "booking", "confirmed": ["lab-1"]},
            "commit confirmed on lab-1; not done yet, the next command finishes it; waits for lab-2",
        ),
        (1, {"state": "returned"}, "commit taken back: no host had confirmed it"),
        (
            1,
            {"state": "superseded", "confirmed": ["lab-1"], "left": {"lab-2": "its baseline is cc by now"}},
            "without lab-2: its baseline is cc by now",
        ),
        (7, {"state": "done", "confirmed": ["lab-1"]}, "the commit of gzip/l4: confirmed on lab-1"),
    ],
    ids=["done", "waits for a host", "taken back", "left", "of a trial that the run does not tell"],
)
def test_what_became_of_a_commit_after_the_run_had_ended_is_told(
    project: Path, capsys: pytest.CaptureFixture[str], number: int, update: dict[str, Any], words: str
) -> None:
    commit = Commit(
        commit_id=f"{RUN}/{number}", fleet="lab", run_id=RUN, why="the commit of gzip/l4", started_at="",
        before={"lab-1": "aa", "lab-2": "aa"}, after={"lab-1": "bb", "lab-2": "bb"}, kept_before="", kept_after="",
    )  # fmt: skip
    record_commit(Store(database_url(Project(project))), commit.model_copy(update=update))
    assert show(project, "last") == 0
    assert words in " ".join(capsys.readouterr().out.split())
    assert show(project, "last", "--output", "json") == 0
    assert [each["state"] for each in json.loads(capsys.readouterr().out)["commits"]] == [update["state"]]


def test_a_run_is_told_also_where_the_database_cannot_be_read(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_DATABASE_URL", "sqlite:////nowhere/ratchet.db")
    assert show(project, "last") == 0
    told = capsys.readouterr()
    assert f"run {RUN}" in told.out and "what became of its commits is not known" in told.err


@pytest.mark.parametrize("folder", ["saved", f"{RUN}.bak", "zz-old"])
def test_the_last_run_is_no_folder_that_happens_to_sort_behind_it(
    project: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    (project / "runs" / folder).mkdir()
    assert show(project, "last") == 0
    assert f"run {RUN} fleet lab completed" in " ".join(capsys.readouterr().out.split())
