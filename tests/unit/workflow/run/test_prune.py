"""What is deleted of old runs, what is kept and why, and that a kill at any point leaves nothing that looks edited."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from controller.adapters.audit import Accounts, AuditLog
from controller.adapters.files import pruned
from controller.adapters.files.kept import write_kept_text
from controller.adapters.files.pruned import delete_evidence, finish_deletions, read_pruned
from controller.adapters.files.runs import read_run
from controller.adapters.store import (
    FleetLock,
    Holder,
    Store,
    commits_of,
    open_commits,
    record_commit,
    record_result,
    runs_on_record,
    trials_on_record,
)
from controller.adapters.store.holding import FleetRow
from controller.adapters.store.tables import holders
from controller.model.commit import Commit, CommitState
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project
from controller.model.run import RunResult
from controller.workflow.run.prune import Limits, Pruning, choose, prune
from controller.workflow.run.verify import verify_run
from tests.unit.workflow.fleet.test_rollback import RUN as UNDONE
from tests.unit.workflow.fleet.test_rollback import Undone

RECORDED = Path(__file__).parents[3] / "fixtures" / "runs" / "r-20261201-121647-001d"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
OLD, OLDER, YOUNG = "r-20260101-000000-000a", "r-20251231-000000-000b", "r-20261130-000000-000c"
KEPT_FILES = {"plan.json", "verdict.json", "settled.json", "kept.before.yml", "kept.after.yml", "report.html"}


class Killed(BaseException):
    """The end of the controller, at once."""


@dataclass
class World:
    """A project with the fleet `web`. `forgotten`: workflows whose steps were deleted."""

    project: Project
    store: Store
    workflows: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def run(self, run_id: str, *, status: str = "completed", fleet: str = "web", planned: bool = True) -> Path:
        """One that has ended, with all its evidence; `running`: one that has not."""
        folder = self.project.runs / run_id
        shutil.copytree(RECORDED, folder)
        started = f"{run_id[2:6]}-{run_id[6:8]}-{run_id[8:10]}T00:00:00Z"
        for name in ("plan.json", "verdict.json"):
            document = json.loads((folder / name).read_text()) | {"run_id": run_id, "fleet": fleet}
            update = {"started_at": started, "status": status} if name == "verdict.json" else {"created_at": started}
            (folder / name).write_text(json.dumps(document | update))
        for name in ("kept.before.yml", "kept.after.yml", "report.html", "request.json"):
            (folder / name).write_text("nginx_gzip: true\n")
        self.workflows.append(run_id)
        if not planned:
            (folder / "plan.json").unlink()
            shutil.rmtree(folder / "trials")
        if status == "running":
            (folder / "verdict.json").unlink()
            self.store.record_run(run_id=run_id, fleet=fleet, status="running", started_at=started, result="{}")
        else:
            record_result(self.store, RunResult.model_validate_json((folder / "verdict.json").read_text()))
        return folder

    def commit(self, commit_id: str, state: CommitState, started_at: str = "2026-01-01T00:00:00Z") -> None:
        commit = Commit(
            commit_id=commit_id, fleet="web", run_id=Path(commit_id).parts[0], why="a commit", started_at=started_at,
            state=state, before={"web-1": "a" * 16}, after={"web-1": "b" * 16}, kept_before="", kept_after="",
        )  # fmt: skip
        record_commit(self.store, commit)

    def choose(self, *, days: int = 30, newest: int = 0, fleet: str = "web") -> Pruning:
        there = [run_id for run_id in self.workflows if run_id not in self.forgotten]
        found = choose(self.project, self.store, Limits(NOW, days, newest), there)
        return next((each for each in found if each.fleet == fleet), Pruning(fleet))

    def prune(self, *, days: int = 30, newest: int = 0, forget: Callable[[list[str]], None] | None = None) -> Pruning:
        """As a command does it, from its beginning."""
        finish_deletions(self.project)
        chosen = self.choose(days=days, newest=newest)
        prune(
            self.project, self.store, [chosen], Limits(NOW, days, newest), accounts=self.accounts,
            forget_workflows=forget or self.forgotten.extend, observe=self.told.append,
        )  # fmt: skip
        return chosen

    def accounts(self, fleet: str) -> Accounts:
        return Accounts(self.audit, fleet, lambda: "2026-12-01T00:00:00Z", self.told.append)

    @property
    def audit(self) -> AuditLog:
        return AuditLog(self.project, self.store)

    def files(self, run_id: str) -> set[str]:
        return {path.name for path in (self.project.runs / run_id).rglob("*") if path.is_file()}

    def left(self) -> dict[str, bytes]:
        files = (path for path in self.project.runs.rglob("*") if path.is_file())
        return {str(path.relative_to(self.project.runs)): path.read_bytes() for path in files}


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "inventory/web/group_vars/all").mkdir(parents=True)
    return World(Project(tmp_path), Store(f"sqlite:///{tmp_path}/ratchet.db"))


def rows(world: World, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = verify_run(world.project, run_id)["trials"]
    return found


def test_an_old_run_loses_its_evidence_and_keeps_what_others_need(world: World) -> None:
    before = read_run(world.project, world.run(OLD).name)
    size = sum(path.stat().st_size for path in (world.project.runs / OLD).rglob("*"))
    chosen = world.prune()
    assert set(chosen.evidence) == {OLD} and chosen.workflows == world.forgotten == [OLD]
    assert world.files(OLD) == KEPT_FILES | {"pruned.json"}
    left = sum(path.stat().st_size for path in (world.project.runs / OLD).rglob("*") if path.name != "pruned.json")
    assert 0 < chosen.size.bytes <= size - left
    assert read_run(world.project, OLD) == before
    assert runs_on_record(world.store)[OLD].status == "completed"
    assert [trial.verdict for trial in trials_on_record(world.store)] == ["KEEP", "REVERT"]
    assert not world.choose()


def test_verify_says_that_evidence_was_pruned_and_when_and_is_deceived_by_no_mark(world: World) -> None:
    folder = world.run(OLD)
    assert verify_run(world.project, OLD)["same"]
    copy = folder / "trials/4/lab-1.csv.gz"
    kept_elsewhere = copy.read_bytes()
    world.prune()
    found = verify_run(world.project, OLD)
    assert (found["same"], found["pruned"]) == (False, "2026-12-01T00:00:00Z")
    for row in found["trials"]:
        told = (row["pruned"], row["recomputed"], row["note"])
        assert told == (True, "", "its evidence was pruned on 2026-12-01 by controller prune")
    # Without the mark, and where there is evidence that is damaged, it is what it always was.
    (folder / "pruned.json").rename(folder / "away")
    assert {(row["pruned"], row["recomputed"]) for row in rows(world, OLD)} == {(False, "REVERT measurement-invalid")}
    (folder / "away").rename(folder / "pruned.json")
    shutil.copytree(RECORDED / "trials", folder / "trials", dirs_exist_ok=True)
    assert verify_run(world.project, OLD) == verify_run(world.project, OLD) | {"same": True, "pruned": None}
    copy.write_bytes(kept_elsewhere[:100])
    assert [row["pruned"] for row in rows(world, OLD)] == [False, False]
    assert rows(world, OLD)[1]["recomputed"] == "REVERT measurement-invalid"


@pytest.mark.parametrize(
    ("why", "make"),
    [
        ("younger than 30 days", lambda world: world.run(YOUNG)),
        ("it is unfinished", lambda world: world.run(OLD, status="running")),
        ("it is unfinished", lambda world: (world.run(OLD) / "verdict.json").unlink()),
        (
            "it is unfinished",  # its verdict is written, its end is not recorded yet
            lambda world: (
                world.run(OLD),
                world.store.record_run(run_id=OLD, fleet="web", status="running", started_at="2026", result="{}"),
            ),
        ),
        ("it cannot be read: controller show", lambda world: (world.run(OLD) / "verdict.json").write_text("{")),
        ("its commit is not done", lambda world: (world.run(OLD), world.commit(f"{OLD}/1", "booking"))),
        (
            "what it kept is in force",
            lambda world: (
                world.run(OLD),
                world.store.record_baseline(
                    fleet="web", host="web-1", configuration="b", run_id=OLD, recorded_at="2026"
                ),
            ),
        ),
        (
            "what it kept is in force",
            lambda world: (world.run(OLD), write_kept_text(world.project, "web", f"nginx_gzip: true # {OLD}, e/v\n")),
        ),
        (
            "a host that it left out is in quarantine",
            lambda world: (
                world.run(OLD),
                world.store.quarantine(fleet="web", host="web-1", why="down", run_id=OLD, since="2026"),
            ),
        ),
    ],
)
def test_what_is_needed_is_kept_and_the_reason_told(world: World, why: str, make: Callable[[World], object]) -> None:
    make(world)
    before = world.left()
    chosen = world.prune()
    ((_, told),) = chosen.kept.items()
    assert told.startswith(why) and not chosen.evidence and not chosen.whole
    assert world.left() == before


def test_the_newest_of_each_fleet_are_kept_however_old_they_are(world: World) -> None:
    for run_id in (OLD, OLDER):
        world.run(run_id)
    world.run("r-20250101-000000-000d", fleet="lab")
    chosen = world.prune(newest=1)
    assert (set(chosen.evidence), chosen.kept) == ({OLDER}, {OLD: "one of the newest 1"})
    assert world.choose(newest=1, fleet="lab").kept == {"r-20250101-000000-000d": "one of the newest 1"}


def test_a_run_that_somebody_is_carrying_out_is_not_touched(world: World) -> None:
    world.run(OLD)
    with FleetLock(world.project, "web", run_id=OLD, since="x"):
        chosen = world.choose()
        assert not chosen and chosen.kept == {OLD: "it is under way"}
    FleetRow(world.store, "web", "u@other/1", Holder(OLD, 1, "u", "other", "x")).take()
    assert world.choose().kept == {OLD: "it is under way"}
    with world.store.transaction() as connection:
        connection.execute(sa.delete(holders))
    # A run of the fleet that is under way is in nobody's way.
    with FleetLock(world.project, "web", run_id=YOUNG, since="x"):
        assert set(world.prune().evidence) == {OLD}


def test_a_run_without_a_plan_goes_whole_with_its_rows(world: World) -> None:
    world.run(OLD, planned=False)
    world.run(OLDER)
    chosen = world.prune()
    assert (set(chosen.whole), set(chosen.evidence)) == ({OLD}, {OLDER})
    assert not (world.project.runs / OLD).exists()
    assert set(runs_on_record(world.store)) == {OLDER} == {trial.run_id for trial in trials_on_record(world.store)}
    assert sorted(world.forgotten) == [OLDER, OLD]


def test_folders_that_are_no_runs_stay(world: World) -> None:
    shutil.copytree(world.run(OLD), world.project.runs / "r-20260101-copy")
    before = {name: text for name, text in world.left().items() if name.startswith("r-20260101-copy")}
    world.prune()
    assert {name: text for name, text in world.left().items() if name.startswith("r-20260101-copy")} == before


def test_records_of_rollbacks_that_are_done_go_and_open_or_young_ones_stay(world: World) -> None:
    world.run(OLD)
    world.commit(f"{OLD}/1", "done")
    world.commit("rollback-20260101-000000-0000", "done")
    world.commit("rollback-20260101-000000-0001", "booking")
    world.commit("rollback-20261130-000000-0002", "done", started_at="2026-11-30T00:00:00Z")
    assert world.prune().rollbacks == 1
    assert [commit.commit_id for commit in open_commits(world.store, "web")] == ["rollback-20260101-000000-0001"]
    assert [commit.state for commit in commits_of(world.store, OLD)] == ["done"]
    assert world.choose().rollbacks == 0


def test_the_steps_of_old_ended_runs_go_also_where_their_evidence_stays(world: World) -> None:
    world.run(OLD)
    world.run(OLDER, status="running")
    world.run(YOUNG)
    # Of another machine, whose folder is there.
    world.store.record_run(run_id="r-elsewhere", fleet="web", status="failed", started_at="2026-01-01", result="{}")
    world.workflows.append("r-elsewhere")
    assert world.prune(newest=3).workflows == ["r-20260101-000000-000a", "r-elsewhere"]
    assert "r-elsewhere" in runs_on_record(world.store)


def test_the_decisions_of_a_year_are_counted(world: World) -> None:
    for run_id in (OLD, YOUNG, "r-20251130-000000-000e"):
        world.run(run_id)
    assert world.choose().decisions == 4


def test_it_is_in_the_audit_log_before_and_after(world: World) -> None:
    world.run(OLD)
    world.run(OLDER, planned=False)
    chosen = world.prune()
    begun, ended = world.audit.entries()
    assert (begun["action"], begun["state"], begun["fleet"]) == ("prune", "begun", "web")
    assert begun["evidence"] == {"evidence_of": [OLD], "deleted": [OLDER], "days": 30}
    assert (ended["state"], ended["began"]) == ("ok", begun["number"])
    assert f"{chosen.size.files} files, {chosen.size.bytes} bytes" in ended["why"]
    world.prune()
    assert len(world.audit.entries()) == 2


def dying_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of these is called for the `number`th time in all, is the controller's last deed."""
    calls, rmtree = 0, shutil.rmtree

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > number:
                if function is rmtree:
                    os.truncate(args[0] / "verdict.json", 0)  # in the middle of it
                raise Killed
            return function(*args, **options)

        return call

    for owner, name in ((Path, "unlink"), (Path, "rename"), (pruned, "write_atomically"), (pruned.shutil, "rmtree")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


def test_a_kill_at_any_point_leaves_nothing_that_looks_edited_and_the_next_one_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, killed = 0, True
    while killed:
        (tmp_path / str(number) / "inventory/web/group_vars/all").mkdir(parents=True)
        world = World(Project(tmp_path / str(number)), Store(f"sqlite:///{tmp_path}/{number}/ratchet.db"))
        world.run(OLD)
        world.run(OLDER, planned=False)
        with monkeypatch.context() as patch:
            dying_at(number, patch)
            try:
                world.prune()
                killed = False
            except Killed:
                pass
        found = verify_run(world.project, OLD)
        assert all(trial["same"] or trial["pruned"] for trial in found["trials"]), number
        world.prune()
        assert world.files(OLD) == KEPT_FILES | {"pruned.json"}
        assert sorted(path.name for path in world.project.runs.iterdir()) == [OLD]
        assert set(runs_on_record(world.store)) == {OLD}
        number += 1
    assert number > 20


def test_a_full_disk_gives_the_mark_the_room_of_the_run_s_input(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world.run(OLD)
    write = pruned.write_atomically

    def full(path: Path, *rest: Any) -> None:
        if (folder / "request.json").exists():
            raise HostFailed("cannot be written: No space left on device", where=str(path))
        write(path, *rest)

    monkeypatch.setattr(pruned, "write_atomically", full)
    world.prune()
    assert read_pruned(world.project, OLD) is not None and not list(folder.rglob("*.csv.gz"))


def test_where_the_mark_cannot_be_written_the_evidence_stays_and_other_runs_lose_theirs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(OLD)
    world.run(OLDER)
    write = pruned.write_atomically

    def refused(path: Path, *rest: Any) -> None:
        if path.parent.name == OLD:
            raise HostFailed("cannot be written: Permission denied", where=str(path), next_step="mend that")
        write(path, *rest)

    monkeypatch.setattr(pruned, "write_atomically", refused)
    with pytest.raises(HostFailed, match="Permission denied"):
        world.prune()
    assert verify_run(world.project, OLD)["same"]
    assert verify_run(world.project, OLDER)["pruned"]
    assert world.audit.entries()[-1]["state"] == "failed"


def test_where_the_database_fails_evidence_goes_and_records_stay_for_the_next_time(world: World) -> None:
    world.run(OLD)
    world.run(OLDER, planned=False)

    def locked(_run_ids: list[str]) -> None:
        raise HostFailed("the database failed: database is locked", next_step="free its lock")

    with pytest.raises(HostFailed, match="database is locked"):
        world.prune(forget=locked)
    assert verify_run(world.project, OLD)["pruned"] and set(world.choose().whole) == {OLDER}
    world.prune()
    assert sorted(world.forgotten) == [OLDER, OLD]


def test_a_damaged_mark_is_told(world: World) -> None:
    world.run(OLD)
    world.prune()
    (world.project.runs / OLD / "pruned.json").write_text("{")
    with pytest.raises(BadInput, match=r"pruned.json: cannot be read, or is damaged"):
        verify_run(world.project, OLD)


def test_a_rollback_to_before_a_pruned_run_goes_where_it_always_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Undone(tmp_path, monkeypatch)
    folder = fleet.context.project.runs / UNDONE
    shutil.copytree(RECORDED / "trials", folder / "trials")
    delete_evidence(fleet.context.project, UNDONE, "2026-12-01T00:00:00Z")
    assert not list(folder.rglob("*.csv.gz"))
    assert fleet.undo() == fleet.found
