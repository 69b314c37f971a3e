"""A search of ranges whose first look at the hosts meets a broken one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.model.errors import HostFailed, RestoreUnverified
from controller.model.experiment import Experiment
from controller.model.fleet import FleetSettings, Trials
from controller.model.run import Budget, RunPlan
from controller.model.steps import Limits
from controller.model.trial import ReasonCode
from controller.search.ledger import Entry
from controller.workflow import engine
from controller.workflow.search import race, ranges
from controller.workflow.search.ranges import _RangeSearch, run_bayes
from controller.workflow.trial.batch import Question


class Steps:
    def __init__(self, *, quarantines: bool) -> None:
        self.baseline = {"web-1": "a" * 16, "web-2": "a" * 16}
        self._quarantines = quarantines

    def goes_on(self, _what: str, lost: dict[str, str]) -> bool:
        self.baseline = {host: known for host, known in self.baseline.items() if host not in lost}
        return bool(lost) and self._quarantines


@pytest.mark.parametrize("quarantines", [True, False])
def test_a_host_whose_limits_cannot_be_read_is_left_out_like_any_broken_one(
    quarantines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: Any = Steps(quarantines=quarantines)
    search: Any = object.__new__(_RangeSearch)
    search._steps = steps

    def limits() -> dict[str, Any]:
        if "web-2" in steps.baseline:
            raise HostFailed("unreachable over SSH", where="web-2 (192.0.2.2 port 22)")
        return {"hosts": sorted(steps.baseline)}

    search._limits = limits
    monkeypatch.setattr(ranges, "engine", SimpleNamespace(step=lambda _name, function, _returns: function()))
    if quarantines:
        assert search._read_limits("limits for e") == {"hosts": ["web-1"]}
    else:
        with pytest.raises(HostFailed, match="unreachable over SSH"):
            search._read_limits("limits for e")


def of_connections(at_most: int) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "connections", "question": "does it help?", "why": "because it may", "sources": ["a page"],
            "risk": {"level": "low", "note": "none"}, "workload": {"rate": 20, "requests": [{"path": "/"}]},
            "ranges": {"nginx_worker_connections": {"kind": "integer", "low": 1000, "high": 2000}},
            "constraints": [{"product": ["nginx_worker_connections"], "at_most": str(at_most)}],
        }
    )  # fmt: skip


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> race.Steps:
    """Of a run on one host, whose settings have been edited since it was planned."""
    plan = RunPlan(
        run_id="r-1", fleet="web", seed=1, created_at="now", ratchet_version="0", hosts=["web-1"], lease_seconds=60,
        alpha=0.05, soak_seconds=20, strategy="bayes", budget=Budget(), trials=[],
    )  # fmt: skip
    edited = FleetSettings(trials=Trials(alpha=0.2, soak_seconds=0))
    fleet = SimpleNamespace(settings=edited, hosts=[SimpleNamespace(name="web-1")], name="web")
    context: Any = SimpleNamespace(fleet=fleet, run_directory=lambda _run: tmp_path)
    limits = Limits(hosts=["web-1"], memory_bytes=2**32, cpus=2, open_files=65536, known={})
    monkeypatch.setattr(engine, "step", lambda _name, function, _returns: function())
    monkeypatch.setattr(_RangeSearch, "_limits", lambda _search: limits)
    return race.Steps(context, plan, {"web-1": "a" * 16})


def test_a_search_of_ranges_without_a_safe_setting_ends_with_that_and_changes_nothing(steps: race.Steps) -> None:
    searched = run_bayes(steps, of_connections(at_most=500), first=1, experiments=1)
    assert searched.results == [] and searched.stop is None and searched.baseline == {"web-1": "a" * 16}
    assert "no safe setting" in searched.summary.stopped.lower() and searched.summary.winner == ""


def stints(monkeypatch: pytest.MonkeyPatch, last: Callable[[Question], dict[str, Any]]) -> list[Question]:
    """Three settings are looked at, and are futile; what becomes of the fourth is said. Returns what was asked."""
    asked: list[Question] = []

    def run_stint(_context: object, _run_id: str, question: Question, _baseline: object) -> dict[str, Any]:
        asked.append(question)
        return entry_of(question, "futile") if len(asked) < 4 else last(question)

    monkeypatch.setattr(race, "run_stint", run_stint)
    return asked


def entry_of(question: Question, ended: ReasonCode, failed: Sequence[str] = ()) -> Entry:
    return Entry(
        trial=question.trial.number, variant=question.trial.variant, stint=question.stint, judgement=None,
        ended=ended, failed_hosts=list(failed),
    )  # fmt: skip


def test_a_search_of_ranges_that_breaks_off_while_it_looks_tells_what_it_has_looked_at(
    steps: race.Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_question: Question) -> Entry:
        raise OSError(28, "No space left on device")

    stints(monkeypatch, full)
    with pytest.raises(OSError, match="No space"):
        run_bayes(steps, of_connections(at_most=5000), first=1, experiments=1)
    assert [(each.trial, each.verdict, each.reason) for each in steps.unsettled()] == [
        (number, "REVERT", "futile") for number in (1, 2, 3)
    ]


def test_the_look_whose_host_cannot_be_put_back_is_told_too(steps: race.Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(*_: object) -> Entry:
        raise RestoreUnverified("its baseline could not be verified", where="web-1")

    stints(monkeypatch, lambda question: entry_of(question, "host-failed", ["web-1"]))
    monkeypatch.setattr(race, "go_on_without", left)
    with pytest.raises(RestoreUnverified):
        run_bayes(steps, of_connections(at_most=5000), first=1, experiments=1)
    assert [(each.trial, each.reason) for each in steps.unsettled()][2:] == [(3, "futile"), (4, "host-failed")]


def test_what_a_resumed_search_comes_up_with_is_judged_as_the_run_was_planned(
    steps: race.Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_question: Question) -> Entry:
        raise HostFailed("enough seen")

    asked = stints(monkeypatch, end)
    with pytest.raises(HostFailed):
        run_bayes(steps, of_connections(at_most=5000), first=1, experiments=1)
    assert {(question.trial.alpha, question.trial.soak_seconds) for question in asked} == {(0.05, 20)}
