"""What a run tells of a trial whose verdict could not be carried out, and which parameters go with what it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.adapters.files.kept import write_kept_text
from controller.adapters.store import commits_of, record_commit
from controller.model.commit import Commit
from controller.model.errors import HostFailed, RestoreUnverified
from controller.model.trial import ReasonCode, TrialResult, VerdictName
from controller.workflow import engine
from controller.workflow.run import optimize
from controller.workflow.run.optimize import Optimize, _Run, kept_by
from tests.unit.workflow.fleet.commit_world import AFTER, BEFORE, NAMES, World

ERROR = RestoreUnverified("unreachable over SSH", where="lab-1", next_step="controller rollback")
LATER_TEXT = "nginx_worker_processes: 8 # r-2\n"


def result(verdict: VerdictName, reason: ReasonCode, note: str) -> TrialResult:
    return TrialResult(
        trial=1, experiment="level", variant="level-4", hosts=["lab-1"], verdict=verdict, reason=reason, note=note,
        objective="p50", design="duet", effect=None, confirmed_effect=None, evidence=128, threshold=100, pairs=12,
        requests=200, errors=0, seconds=20, probing_seconds=12,
    )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(engine, "step", lambda _name, function, _returns: function())
    return World(tmp_path, monkeypatch)


def told(world: World, found: TrialResult) -> tuple[TrialResult, _Run]:
    """`found` as a run tells it that breaks off with ERROR."""
    run = _Run("r-1", "first-winner", status="failed", baseline=dict.fromkeys(NAMES, BEFORE))
    # Nobody launches an engine for it: only what is told is asked.
    workflow = object.__new__(Optimize)
    workflow._context = world.context
    return workflow._not_settled(run, found, ERROR), run


def test_a_proven_variant_that_could_not_be_committed_is_no_keep(world: World) -> None:
    record_commit(world.store, world.commit(state="going-live"))
    reverted, run = told(world, result("KEEP", "proven-gain", ""))
    assert (reverted.verdict, reverted.reason) == ("REVERT", "commit-failed")
    assert reverted.note == "lab-1: unreachable over SSH" and reverted.pairs == 12
    assert run.status == "failed"


def test_what_a_host_has_confirmed_is_a_keep_whatever_came_after_and_is_to_be_finished(world: World) -> None:
    record_commit(world.store, world.commit(state="confirming", confirmed=["web-2"]))
    kept, run = told(world, result("KEEP", "proven-gain", ""))
    assert (kept.verdict, kept.reason) == ("KEEP", "proven-gain")
    assert run.status == "unverified" and run.baseline == dict.fromkeys(NAMES, AFTER)
    assert "confirmed on web-2; next: controller rollback --fleet web" in run.message


def test_why_a_trial_was_reverted_is_not_lost_when_its_host_could_not_be_verified(world: World) -> None:
    reverted = result("REVERT", "host-failed", "lab-1: the agent ended without saying why")
    assert told(world, reverted)[0] == reverted


@pytest.fixture
def ended(world: World) -> World:
    """A run that found one text; a later one has written another since."""
    folder = world.context.run_directory("r-1")
    folder.mkdir(parents=True)
    (folder / "kept.before.yml").write_text("nginx_gzip: true # r-0\n")
    write_kept_text(world.context.project, "web", LATER_TEXT)
    return world


def test_a_run_that_ends_late_leaves_the_parameters_that_it_found_or_committed(ended: World) -> None:
    before, after = dict.fromkeys(NAMES, BEFORE), dict.fromkeys(NAMES, AFTER)
    assert kept_by(ended.context, "r-1", before, before) == "nginx_gzip: true # r-0\n"
    # Booked, and superseded since: it was this run's all the same.
    record_commit(ended.store, ended.commit(state="superseded", confirmed=list(NAMES), booked=list(NAMES)))
    assert kept_by(ended.context, "r-1", before, after) == ended.commit().kept_after


def test_the_parameters_of_a_commit_that_is_still_to_be_booked_go_with_its_baseline(ended: World) -> None:
    before, after = dict.fromkeys(NAMES, BEFORE), dict.fromkeys(NAMES, AFTER)
    record_commit(ended.store, ended.commit(state="confirming", confirmed=["web-1"]))
    assert kept_by(ended.context, "r-1", before, after) == ended.commit().kept_after


def test_with_what_somebody_has_deployed_meanwhile_go_the_parameters_of_now(ended: World) -> None:
    before = dict.fromkeys(NAMES, BEFORE)
    assert kept_by(ended.context, "r-1", before, before | {"web-1": "d" * 16}) == LATER_TEXT


def test_a_commit_that_no_host_has_confirmed_is_no_keep_whatever_its_record_s_state(world: World) -> None:
    record_commit(world.store, world.commit(state="confirming"))
    reverted, _ = told(world, result("KEEP", "proven-gain", ""))
    assert (reverted.verdict, reverted.reason) == ("REVERT", "commit-failed")


def test_what_broke_off_before_its_commit_is_told_as_what_broke_it(world: World) -> None:
    reverted, _ = told(world, result("KEEP", "proven-gain", ""))
    assert (reverted.verdict, reverted.reason) == ("REVERT", "host-failed")


def test_a_database_that_is_locked_at_the_end_is_waited_for_and_ends_nothing(
    ended: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict.fromkeys(NAMES, BEFORE)
    locked = [HostFailed("database is locked")] * 2

    def reading(*asked: Any) -> list[Commit]:
        if locked:
            raise locked.pop()
        return commits_of(*asked)

    monkeypatch.setattr(optimize, "commits_of", reading)
    assert kept_by(ended.context, "r-1", before, before) == "nginx_gzip: true # r-0\n"
    locked += [HostFailed("database is locked")] * 20
    assert kept_by(ended.context, "r-1", before, before) == LATER_TEXT
    assert "what the run has kept is not known" in str(ended.events)
