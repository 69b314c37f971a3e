"""A rollback to before a run, whoever stops it and whichever host is away: hosts, records and settings agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.adapters.files.kept import read_kept, with_kept, write_kept_text
from controller.adapters.store import open_commits
from controller.model.errors import BadInput, Interrupted, RestoreUnverified
from controller.model.run import RunPlan, RunResult
from controller.workflow.fleet import rollback
from controller.workflow.fleet.open_commits import finish_open
from controller.workflow.fleet.rollback import roll_back_to_run
from tests.unit.workflow.fleet.commit_world import NAMES
from tests.unit.workflow.trial.test_apply_verdict import Fleet

RUN = "r-20261123-201500-3fa9"


class Undone(Fleet):
    """A fleet whose run RUN has kept something; `found`: what that run had found."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        monkeypatch.setattr(rollback, "read_status", self.status)
        monkeypatch.setattr(rollback, "on_each_host", self.one_after_another)
        self.found = dict(self.confirmed)
        project = self.context.project
        folder = project.runs / RUN
        folder.mkdir(parents=True)
        plan = RunPlan(
            run_id=RUN, fleet="web", seed=1, created_at="2026-11-23", ratchet_version="0", hosts=list(NAMES),
            lease_seconds=60, alpha=0.05, trials=[],
        )  # fmt: skip
        (folder / "plan.json").write_text(plan.model_dump_json())
        (folder / "kept.before.yml").write_text("")
        write_kept_text(project, "web", with_kept(project, "web", parameters={"nginx_gzip_comp_level": 4}, comment=RUN))
        self.kept = {name: self.rendered(name) for name in NAMES}
        self.live, self.confirmed = dict(self.kept), dict(self.kept)
        self.staged += self.kept.values()
        for name, configuration in self.kept.items():
            self.store.record_baseline(
                fleet="web", host=name, configuration=configuration, run_id=RUN, recorded_at="2026-11-23"
            )
        verdict = RunResult(
            run_id=RUN, fleet="web", seed=1, status="completed", started_at="2026-11-23", seconds=1.0, trials=[],
            baseline_before=self.found, baseline_after=self.kept, message="",
        )  # fmt: skip
        (folder / "verdict.json").write_text(verdict.model_dump_json())

    def undo(self) -> dict[str, str]:
        return roll_back_to_run(self.context, RUN, work_id="rollback-1", before=True)

    def stop_at(self, call: str, times: int) -> None:
        def at(_number: int, called: str) -> None:
            if called == call:
                for _ in range(times):
                    self.context.stop.request()

        self.at = at

    def recorded(self) -> dict[str, str]:
        return {host: baseline.configuration for host, baseline in self.store.baselines("web").items()}

    def assert_on(self, configurations: dict[str, str], parameters: dict[str, int]) -> None:
        """Hosts, records and settings agree, and nothing is left to do."""
        assert self.confirmed == self.live == self.recorded() == configurations
        assert read_kept(self.context.project, "web") == parameters
        assert open_commits(self.store, "web") == []


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undone:
    return Undone(tmp_path, monkeypatch)


def test_it_puts_back_what_the_run_had_found(fleet: Undone) -> None:
    assert fleet.undo() == fleet.found
    fleet.assert_on(fleet.found, {})


@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_before_a_host_has_confirmed_changes_neither_hosts_nor_settings(times: int, fleet: Undone) -> None:
    fleet.stop_at("switch web-2", times)
    with pytest.raises(Interrupted, match="before any host had confirmed"):
        fleet.undo()
    fleet.assert_on(fleet.kept, {"nginx_gzip_comp_level": 4})


@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_once_a_host_has_confirmed_finishes_it(times: int, fleet: Undone) -> None:
    fleet.stop_at("confirm web-1", times)
    assert fleet.undo() == fleet.found
    fleet.assert_on(fleet.found, {})


@pytest.mark.parametrize("when", ["from the start", "switch web-1", "confirm web-1"])
def test_no_host_goes_forward_again_onto_what_is_undone_because_another_is_away(when: str, fleet: Undone) -> None:
    def at(_number: int, called: str) -> None:
        if called == when:
            fleet.down = {"web-2"}

    fleet.at = at
    if when == "from the start":
        fleet.down = {"web-2"}
    with pytest.raises(RestoreUnverified, match="2 of 3 hosts are on the baseline before") as caught:
        fleet.undo()
    assert caught.value.where == "web-2" and "controller rollback --fleet web" in caught.value.next_step
    assert fleet.confirmed == fleet.recorded() == fleet.found | {"web-2": fleet.kept["web-2"]}
    assert read_kept(fleet.context.project, "web") == {}
    # Whatever command comes next, once the host is back.
    fleet.at, fleet.down = lambda *_: None, set()
    assert finish_open(fleet.context) == {}
    fleet.assert_on(fleet.found, {})


def test_a_configuration_that_is_gone_is_made_again_or_nothing_is_changed(
    fleet: Undone, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.staged = [*fleet.kept.values()]
    monkeypatch.setattr(rollback, "stage_again", lambda _context, wanted, _kept: dict.fromkeys(wanted, "d" * 16))
    with pytest.raises(BadInput, match="cannot be made again"):
        fleet.undo()
    fleet.assert_on(fleet.kept, {"nginx_gzip_comp_level": 4})


def test_where_ansible_would_not_read_what_it_writes_it_is_refused_before_a_host_changes(fleet: Undone) -> None:
    group_vars = fleet.context.project.inventory("web") / "group_vars"
    (group_vars / "all").rename(group_vars / "aside")
    (group_vars / "all.yml").write_text("nginx_gzip: true\n")
    with pytest.raises(BadInput, match="would not read this file beside it"):
        fleet.undo()
    assert fleet.confirmed == fleet.live == fleet.kept
