"""What a sealed run leaves: its trials on record, and dashboards that tell it with the fleet's runs before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.ansible import PlaybookResult
from controller.adapters.store import record_result, trials_on_record
from controller.model.errors import HostFailed
from controller.model.run import RunResult
from controller.model.steps import RunEnded
from controller.workflow.run import finalize
from tests.unit.workflow.fleet.commit_world import BEFORE, NAMES, World

RUN = "r-20261201-121647-001d"
RECORDED = Path(__file__).parents[3] / "fixtures" / "runs" / RUN


class Sealing(World):
    """`shown`: host -> the runs of its dashboard."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        self.shown: dict[str, list[str]] = {}
        monkeypatch.setattr(finalize, "read_status", self.status)
        monkeypatch.setattr(finalize, "on_each_host", self.one_after_another)
        monkeypatch.setattr(finalize, "run_playbook", self.play)

    def play(self, *_: object, extra_vars: dict[str, Any], **__: object) -> PlaybookResult:
        for host, state in extra_vars["dashboard_states"].items():
            self.shown[host] = [run["run_id"] for run in json.loads(state)["runs"]]
        return PlaybookResult("dashboard.yml", 0, 0.1, {}, "")

    def ended(self, **changes: object) -> RunResult:
        found = RunResult.model_validate_json((RECORDED / "verdict.json").read_text())
        return found.model_copy(update={"fleet": "web", "baseline_before": dict.fromkeys(NAMES, BEFORE)} | changes)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sealing:
    return Sealing(tmp_path, monkeypatch)


def seal(world: Sealing, result: RunResult) -> RunResult:
    return finalize.seal(world.context, RunEnded(result=result, left=dict.fromkeys(NAMES, BEFORE), kept=""))


def test_a_sealed_run_s_trials_are_on_record_with_their_times(world: Sealing) -> None:
    folder = world.context.run_directory(RUN)
    folder.mkdir(parents=True)
    lines = [f'{{"at": "2026-12-01T12:00:0{second}Z", "event": "pair", "trial": 1}}\n' for second in (3, 5)]
    (folder / "log.jsonl").write_text("".join(lines))
    for _ in range(2):
        seal(world, world.ended())
    kept, reverted = trials_on_record(world.store, fleet="web")
    assert (kept.started_at, kept.ended_at) == ("2026-12-01T12:00:03Z", "2026-12-01T12:00:05Z")
    assert (reverted.verdict, reverted.started_at) == ("REVERT", None)
    assert world.store.unfinished() == []


def test_dashboards_tell_the_run_once_and_the_newest_of_its_fleet_before_it(
    world: Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalize, "RUNS_ON_DASHBOARD", 3)
    for day, fleet in ((1, "web"), (2, "web"), (3, "lab"), (4, "web")):
        earlier = world.ended(run_id=f"r-2026110{day}-000000-0000", started_at=f"2026-11-0{day}T00:00:00Z", fleet=fleet)
        record_result(world.store, earlier)
    for _ in range(2):
        seal(world, world.ended())
        assert set(world.shown) == set(NAMES)
        assert world.shown[NAMES[0]] == [RUN, "r-20261104-000000-0000", "r-20261102-000000-0000"]


def test_a_run_s_folder_that_cannot_be_made_is_told_with_what_to_do(world: Sealing) -> None:
    world.context.project.runs.write_text("in the way")
    with pytest.raises(HostFailed, match=r"not sealed: cannot be made: ") as told:
        seal(world, world.ended())
    assert "controller resume" in told.value.next_step
