"""Trials of ended runs, as rows: written with a run's result, and made of the results that older databases hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from controller.adapters.files.runs import trial_times
from controller.adapters.store import (
    Store,
    commits_of,
    count_ended_rollbacks,
    forget_ended_rollbacks,
    forget_runs,
    read_commit,
    recent_results,
    record_commit,
    record_plan,
    record_result,
    runs_on_record,
    trials_on_record,
)
from controller.adapters.store.tables import runs, schema, trials
from controller.model.commit import Commit
from controller.model.project import Project
from controller.model.run import RunPlan, RunResult

RUN = "r-20261201-121647-001d"
RECORDED = Path(__file__).parents[2] / "fixtures" / "runs" / RUN


def commit_of(commit_id: str, **changes: object) -> Commit:
    commit = Commit(
        commit_id=commit_id, fleet="lab", run_id=commit_id, why="w", started_at="2026-12-01T00:00:00Z", state="done",
        before={"lab-1": "a"}, after={"lab-1": "b"}, kept_before="", kept_after="",
    )  # fmt: skip
    return commit.model_copy(update=changes)


def recorded(**changes: object) -> RunResult:
    return RunResult.model_validate_json((RECORDED / "verdict.json").read_text()).model_copy(update=changes)


def test_each_trial_of_an_ended_run_is_a_row_with_what_came_of_it(store: Store) -> None:
    result = recorded()
    record_result(store, result, {1: ("2026-12-01T12:16:50Z", "2026-12-01T12:17:25Z")})
    kept, reverted = trials_on_record(store)
    assert (kept.run_id, kept.number, kept.fleet, kept.verdict, kept.reason) == (RUN, 1, "lab", "KEEP", "proven-gain")
    assert (kept.experiment, kept.variant, kept.objective, kept.pairs) == ("gzip-level", "level-4", "p50", 12)
    # Of fresh pairs, where there are any.
    assert kept.effect == result.trials[0].confirmed_effect != result.trials[0].effect
    assert kept.hosts == ["lab-1", "lab-2", "lab-3"]
    assert (kept.started_at, kept.ended_at) == ("2026-12-01T12:16:50Z", "2026-12-01T12:17:25Z")
    assert (reverted.number, reverted.verdict, reverted.reason) == (result.trials[1].trial, "REVERT", "slower")
    assert reverted.effect == result.trials[1].effect
    assert (reverted.started_at, reverted.ended_at) == (None, None)


def test_recording_a_result_again_leaves_its_last_trials(store: Store) -> None:
    record_result(store, recorded())
    record_result(store, recorded(status="failed", trials=recorded().trials[:1]))
    assert [trial.number for trial in trials_on_record(store)] == [1]
    assert [run.status for run in recent_results(store, "lab", 5)] == ["failed"]


def test_trials_can_be_asked_for_by_fleet_and_time_newest_run_first(store: Store) -> None:
    for day, fleet in ((1, "lab"), (2, "web"), (3, "lab")):
        record_result(store, recorded(run_id=f"r-{day}", fleet=fleet, started_at=f"2026-12-0{day}T00:00:00Z"))
    assert [trial.run_id for trial in trials_on_record(store)] == ["r-3", "r-3", "r-2", "r-2", "r-1", "r-1"]
    assert {trial.run_id for trial in trials_on_record(store, fleet="lab")} == {"r-3", "r-1"}
    assert {trial.run_id for trial in trials_on_record(store, since="2026-12-02T00:00:00Z")} == {"r-3", "r-2"}


def test_the_newest_ended_runs_of_a_fleet_can_be_read_beside_damaged_ones(store: Store) -> None:
    for day, fleet in ((1, "lab"), (2, "lab"), (3, "web"), (4, "lab")):
        record_result(store, recorded(run_id=f"r-{day}", fleet=fleet, started_at=f"2026-12-0{day}T00:00:00Z"))
    store.record_run(run_id="r-5", fleet="lab", status="running", started_at="2026-12-05T00:00:00Z", result="{}")
    store.record_run(run_id="r-6", fleet="lab", status="failed", started_at="2026-12-06T00:00:00Z", result="{")
    assert [run.run_id for run in recent_results(store, "lab", 3)] == ["r-4", "r-2"]


def test_a_run_that_is_gone_on_with_keeps_its_plan(store: Store) -> None:
    plan = RunPlan.model_validate_json((RECORDED / "plan.json").read_text())
    for _ in range(2):
        store.record_run(run_id=RUN, fleet="lab", status="running", started_at="2026", result="{}")
        record_plan(store, plan)
    record_result(store, recorded())
    with store.transaction() as connection:
        assert RunPlan.model_validate_json(connection.execute(sa.select(runs.c.plan)).scalar_one()) == plan


def test_an_upgrade_makes_rows_of_the_results_that_are_there_and_leaves_damaged_ones(database: str) -> None:
    store = Store(database)
    record_result(store, recorded())
    damaged = ['{"trials": [{"trial": 1}]}', "{", "[]", "null", '{"trials": 7}', "{}"]
    for number, document in enumerate(damaged):
        store.record_run(run_id=f"r-{number}", fleet="lab", status="failed", started_at="2026", result=document)
    with store.transaction() as connection:
        connection.execute(sa.delete(trials))
        connection.execute(sa.update(schema).values(version=1))
    store = Store(database)
    assert "from version 1 to" in store.upgraded
    assert [(trial.run_id, trial.number, trial.verdict, trial.started_at) for trial in trials_on_record(store)] == [
        (RUN, 1, "KEEP", None),
        (RUN, recorded().trials[1].trial, "REVERT", None),
    ]
    with store.transaction() as connection:
        found = set(connection.execute(sa.select(runs.c.result).where(runs.c.run_id != RUN)).scalars())
    assert found == set(damaged)


def test_rows_of_a_run_that_has_ended_can_be_deleted_and_of_no_other(store: Store) -> None:
    for run_id in ("r-1", "r-2"):
        record_result(store, recorded(run_id=run_id))
        record_commit(store, commit_of(f"{run_id}/1"))
    store.record_run(run_id="r-3", fleet="lab", status="running", started_at="2026", result="{}")
    assert {run_id: run.status for run_id, run in runs_on_record(store).items()} == {
        "r-1": "completed", "r-2": "completed", "r-3": "running",
    }  # fmt: skip
    for _ in range(2):
        forget_runs(store, ["r-1", "r-3", "r-9"])
        assert set(runs_on_record(store)) == {"r-2", "r-3"}
        assert {trial.run_id for trial in trials_on_record(store)} == {"r-2"}
        assert (commits_of(store, "r-1"), len(commits_of(store, "r-2"))) == ([], 1)


def test_records_of_rollbacks_can_be_deleted_once_they_are_done_and_old(store: Store) -> None:
    record_commit(store, commit_of("rollback-1"))
    record_commit(store, commit_of("rollback-2", state="booking"))
    record_commit(store, commit_of("rollback-3", fleet="web"))
    record_commit(store, commit_of("rollback-4", started_at="2026-12-02T00:00:00Z"))
    record_commit(store, commit_of("r-1/1"))
    assert count_ended_rollbacks(store, "lab", "2026-12-02T00:00:00Z") == 1
    forget_ended_rollbacks(store, "lab", "2026-12-02T00:00:00Z")
    found = {name for name in (f"rollback-{number}" for number in range(1, 5)) if read_commit(store, name)}
    assert found == {"rollback-2", "rollback-3", "rollback-4"} and read_commit(store, "r-1/1")


LOG = """\
{"at": "2026-12-01T12:00:00Z", "event":"step","text":"trial 1: staging"}
{"at": "2026-12-01T12:00:01Z", "event":"trial-started","plan":{"number":1}}
{"at": "2026-12-01T12:00:02Z", "event":"trial-started","plan":{"number":2}}
{"at": "2026-12-01T12:00:03Z", "event":"pair","trial":1}
{"at": "2026-12-01T12:00:04Z", "event":"trial-ended","result":{"trial":1}}
{"at": "2026-12-01T12:00:05Z", "event":"pair","trial":2}
{"at": "2026-12-01T12:00:06Z", "event":"trial-settled","trial":1}
{"at": "2026-12-01T12:00:07Z", "event":"pair","tri
[1]
"""


def test_when_a_trial_began_and_ended_is_in_the_run_s_log(tmp_path: Path) -> None:
    assert trial_times(Project(tmp_path), RUN) == {}
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    (tmp_path / "runs" / RUN / "log.jsonl").write_text(LOG)
    assert trial_times(Project(tmp_path), RUN) == {
        1: ("2026-12-01T12:00:01Z", "2026-12-01T12:00:06Z"),
        2: ("2026-12-01T12:00:02Z", "2026-12-01T12:00:05Z"),
    }


@pytest.mark.parametrize("text", ["", "\x00\xff"])
def test_a_log_that_is_damaged_tells_no_times(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    (tmp_path / "runs" / RUN / "log.jsonl").write_text(text)
    assert trial_times(Project(tmp_path), RUN) == {}
