"""A run that is given up in the middle of its commit: hosts, records, settings and what is told agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.adapters.ansible import HostOutcome, PlaybookResult
from controller.adapters.files.kept import read_kept
from controller.adapters.store import open_commits, record_commit
from controller.model.run import RunResult
from controller.workflow.fleet import configurations, rollback
from controller.workflow.fleet.committing import carry_out
from controller.workflow.run import finalize
from controller.workflow.run.end import end_run, end_without_fleet
from tests.unit.workflow.fleet.commit_world import AFTER, BEFORE, LATER, NAMES, Killed, World

STARTED = "2026-01-01T00:00:00+00:00"


class Unfinished(World):
    """A fleet whose run r-1 is at the commit of its trial."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        for module in (rollback, configurations, finalize):
            monkeypatch.setattr(module, "read_status", self.status)
            monkeypatch.setattr(module, "on_each_host", self.one_after_another)
        monkeypatch.setattr(configurations, "run_playbook", self.play)
        monkeypatch.setattr(finalize, "refresh_dashboards", lambda *_: None)
        self.store.record_run(run_id="r-1", fleet="web", status="running", started_at=STARTED, result="{}")
        for name in NAMES:
            self.store.record_baseline(fleet="web", host=name, configuration=BEFORE, run_id="", recorded_at="2026")

    def play(self, _project: object, _fleet: str, playbook: str, *, limit: list[str], **_: Any) -> PlaybookResult:
        assert playbook == "rollback.yml"
        for name in limit:
            self.call(f"play {name}")
            self.live[name] = self.confirmed[name]
        hosts = {name: HostOutcome(documents=[{"confirmed": self.confirmed[name]}]) for name in limit}
        return PlaybookResult(playbook, 0, 0.1, hosts, "")

    def die_after(self, calls: int) -> None:
        """Of what is asked from now on."""
        before = len(self.calls)

        def at(number: int, _call: str) -> None:
            if number - before > calls:
                raise Killed

        self.at = at

    def end(self) -> RunResult:
        return end_run(self.context, "r-1", STARTED)

    def assert_told(self, ended: RunResult) -> bool:
        """Whether the commit was finished, everywhere and in every place that tells of it."""
        recorded = {host: baseline.configuration for host, baseline in self.store.baselines("web").items()}
        kept = self.confirmed["web-1"] == AFTER
        assert self.live == self.confirmed == recorded == dict.fromkeys(NAMES, AFTER if kept else BEFORE)
        assert bool(read_kept(self.context.project, "web")) == kept == ("kept on the hosts" in ended.message)
        assert open_commits(self.store, "web") == [] and self.store.unfinished() == []
        assert ended.status == "failed" and "ended by hand" in ended.message
        return kept


def killed_after(calls: int, root: Path, patch: pytest.MonkeyPatch) -> tuple[Unfinished, bool]:
    """The run, killed after so many calls of its commit; and whether it was at its end by then."""
    root.mkdir()
    world = Unfinished(root, patch)
    world.die_after(calls)
    try:
        carry_out(world.context, world.commit())
    except Killed:
        world.lease_ends()
        world.at = lambda *_: None
        return world, False
    return world, True


def test_a_run_that_was_killed_at_any_call_of_its_commit_can_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, directions, over = 0, set(), False
    while not over:
        with monkeypatch.context() as patch:
            world, over = killed_after(calls, tmp_path / str(calls), patch)
            world.at = lambda *_: None
            directions.add(world.assert_told(world.end()))
        calls += 1
    assert calls > 12 and directions == {False, True}


@pytest.mark.parametrize("confirming", [False, True])
def test_who_dies_while_a_run_is_ended_leaves_what_the_next_one_ends(
    confirming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the commit's record says that it is finished forward, and after its first host has confirmed.
    commit_calls = 4 if not confirming else 6
    calls, ended = 0, False
    while not ended:
        with monkeypatch.context() as patch:
            world, _ = killed_after(commit_calls, tmp_path / str(calls), patch)
            assert (AFTER in world.confirmed.values()) == confirming
            world.die_after(calls)
            try:
                result = world.end()
                ended = True
            except Killed:
                world.lease_ends()
                world.at = lambda *_: None
                result = world.end()
            assert world.assert_told(result) == confirming
        calls += 1
    assert calls > 2


def test_a_fleet_that_is_gone_leaves_no_commit_for_a_later_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Unfinished(tmp_path, monkeypatch)
    record_commit(world.store, world.commit(state="confirming", confirmed=["web-1"]), 7)
    project = world.context.project
    # As long as a host of it is on record, it may be another checkout's: nothing is forgotten.
    ended = end_without_fleet(project, world.store, "r-1", "web", started_at=STARTED, why="it has no hosts")
    assert ended.status == "unverified" and len(open_commits(world.store, "web")) == 1
    world.store.forget("web", NAMES)
    ended = end_without_fleet(project, world.store, "r-1", "web", started_at=STARTED, why="it has no hosts")
    assert ended.status == "failed" and "fleet web is gone" in ended.message
    assert open_commits(world.store, "web") == []


def test_who_can_ask_no_host_does_not_tell_that_a_commit_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Unfinished(tmp_path, monkeypatch)
    record_commit(world.store, world.commit(state="confirming"))
    world.down = set(NAMES)
    ended = world.end()
    assert ended.status == "unverified" and "kept on the hosts" not in ended.message


def test_what_was_undone_before_the_run_is_ended_is_not_told_as_kept_on_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1 is kept and trial 2 on top of it; then somebody rolls back to an earlier run's baseline."""
    world = Unfinished(tmp_path, monkeypatch)
    carry_out(world.context, world.commit())
    second = {"before": dict.fromkeys(NAMES, AFTER), "after": dict.fromkeys(NAMES, LATER), "started_at": "2026-01-02"}
    carry_out(world.context, world.commit(commit_id="r-1/2", why="the commit of keepalive/k8", **second))
    world.confirmed, world.live = dict.fromkeys(NAMES, AFTER), dict.fromkeys(NAMES, AFTER)
    message = world.end().message
    assert "kept on the hosts: the commit of gzip/l4\nkept, and replaced or undone since: the commit of keep" in message
    world.confirmed, world.live = dict.fromkeys(NAMES, BEFORE), dict.fromkeys(NAMES, BEFORE)
    assert "kept on the hosts" not in world.end().message
