"""The index of runs and baselines, and the lock of a fleet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.adapters.store import FleetLock, Store
from controller.model.errors import BadInput, FleetLocked
from controller.model.project import Project


def test_a_run_is_unfinished_until_it_is_sealed(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/r.db")
    store.record_run(run_id="r-1", fleet="prod", status="running", started_at="2026", result="{}")
    assert store.unfinished() == [("r-1", "prod", "2026")]
    store.record_run(run_id="r-1", fleet="prod", status="completed", started_at="2026", result="{}")
    assert store.unfinished() == []


def test_recording_a_baseline_twice_leaves_one(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/r.db")
    for configuration in ("a", "a", "b"):
        store.record_baseline(fleet="prod", host="web-1", configuration=configuration, run_id="r-1", recorded_at="2026")
    assert [baseline.configuration for baseline in store.baselines("prod").values()] == ["b"]


def test_a_database_that_cannot_be_opened_is_bad_input_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        Store(f"sqlite:///{tmp_path}/none/r.db")
    assert "cannot be opened" in str(caught.value)
    with pytest.raises(BadInput) as caught:
        Store("nonsense://user:hunter2@127.0.0.1/x")
    assert "hunter2" not in str(caught.value)


def test_a_second_run_is_told_who_holds_the_fleet(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with (
        FleetLock(project, "prod", run_id="r-1", since="2026-11-24T00:00:00Z"),
        pytest.raises(FleetLocked, match=r"held by run r-1 of .* since 2026-11-24T00:00:00Z"),
        FleetLock(project, "prod", run_id="r-2", since="later"),
    ):
        pass
    with FleetLock(project, "prod", run_id="r-2", since="later"):
        pass


def test_the_holder_can_be_asked_for_without_taking_the_lock(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert FleetLock.holder(project, "prod") is None
    with FleetLock(project, "prod", run_id="r-1", since="x"):
        holder = FleetLock.holder(project, "prod")
        assert holder is not None
        assert holder.run_id == "r-1"
    assert FleetLock.holder(project, "prod") is None


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import sys, os; from pathlib import Path; from controller.adapters.store import FleetLock;"
        "from controller.model.project import Project;"
        "FleetLock(Project(Path(sys.argv[1])), 'prod', run_id='r-1', since='x').__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    with FleetLock(Project(tmp_path), "prod", run_id="r-2", since="later"):
        pass
