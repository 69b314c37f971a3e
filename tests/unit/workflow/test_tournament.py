"""A tournament's steps are recorded, and one that was killed goes on from them; its hosts are simulated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.search_worlds import SimulatedHost
from controller.model.events import Observer
from controller.model.experiment import Experiment, ParameterValue
from controller.model.fleet import Fleet
from controller.model.trial import TrialPlan, TrialResult
from controller.search.ledger import Entry, Try
from controller.workflow import searching, searching_tournament
from controller.workflow.planning import draw_plan
from controller.workflow.searching import Searched, Steps
from controller.workflow.stints import Question
from tests.unit.workflow.test_planning import fleet

TRUTH = {"v1": 0.02, "v2": 0.30, "v3": 0.10, "v4": 0.0}
BASELINE = {"web-1": "a" * 16, "web-2": "a" * 16}


@dataclass(frozen=True)
class Surroundings:
    """Of a RunContext what a tournament on simulated hosts needs."""

    fleet: Fleet
    observer: Observer
    run_directory: Callable[[str], Path]


class Killed(Exception):
    """The controller is gone."""


class Recorded:
    """Durable steps in a dictionary; dies before the step number `last` + 1."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.last = 1000

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        if name not in self.values:
            if len(self.values) >= self.last:
                raise Killed(name)
            self.values[name] = json.loads(json.dumps(function()))
        return self.values[name]


def about() -> Experiment:
    return Experiment.model_validate(
        {
            "name": "levels",
            "question": "Which of them is best?",
            "why": "to let them play",
            "risk": {"level": "low", "note": "none"},
            "sources": ["a simulation"],
            "workload": {"rate": 100, "requests": [{"path": "/"}]},
            "variants": [{"name": name, "parameters": {"nginx_x": name}} for name in TRUTH],
        }
    )


def _gain(parameters: dict[str, ParameterValue] | None) -> float:
    return TRUTH[str(parameters["nginx_x"])] if parameters else 0.0


def _stint(_context: Any, _run_id: str, question: Question, baseline: dict[str, str]) -> dict[str, Any]:
    trial, stint = question.trial, question.stint
    assert set(trial.hosts) <= set(baseline)
    gain = _gain(dict(trial.variant.parameters)) - _gain(question.control)
    pairs = stint.pairs_per_host * len(trial.hosts)
    asked = Try(trial=trial.number, variant=trial.variant, pairs_per_host=pairs, alone=stint.alone, why=question.why)
    entry = SimulatedHost(lambda _: gain, trial.number).measure(trial, asked, stint.number)
    document: dict[str, Any] = json.loads(entry.model_dump_json())
    return document


def _result(
    _context: Any, _run_id: str, trial: TrialPlan, entries: list[Entry], *, outdone: str, against: str
) -> TrialResult:
    """As `result_of`, from the entry alone: simulated hosts leave no CSV."""
    reason = entries[-1].ended or "outdone"
    return TrialResult(
        trial=trial.number,
        experiment="levels",
        variant=trial.variant.name,
        hosts=trial.hosts,
        verdict="KEEP" if reason == "proven-gain" else "REVERT",
        reason=reason,
        note=outdone,
        objective="p50",
        design="duet",
        effect=None,
        confirmed_effect=None,
        evidence=1.0,
        threshold=100.0,
        pairs=1,
        requests=1,
        errors=0,
        seconds=1.0,
        probing_seconds=1.0,
        against=against,
    )


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    steps = Recorded()
    monkeypatch.setattr(searching.engine, "step", steps.step)
    monkeypatch.setattr(searching_tournament, "run_stint", _stint)
    monkeypatch.setattr(searching_tournament, "result_of", _result)
    monkeypatch.setattr(Steps, "live", lambda _self, _trial, result: result)
    monkeypatch.setattr(Steps, "settle", lambda _self, _trial, results, at: (results[at], None))
    return steps


def run(folder: Path) -> tuple[Searched, Steps]:
    plan = draw_plan("r-1", fleet(2), [about()], seed=3, created_at="now", strategy="tournament")
    context: Any = Surroundings(fleet(2), lambda _: None, lambda _: folder)
    steps = Steps(context, plan, dict(BASELINE))
    return searching_tournament.run_tournament(steps, about(), first=1, candidates=4), steps


def test_the_champion_is_kept_and_every_match_is_a_trial(recorded: Recorded, tmp_path: Path) -> None:
    searched, _ = run(tmp_path)
    assert searched.summary.winner == "v2"
    assert [result.trial for result in searched.results] == list(range(1, len(searched.results) + 1))
    assert [(each.variant, each.against) for each in searched.results if each.verdict == "KEEP"] == [("v2", "")]
    first = searched.results[:2]
    assert sorted(host for result in first for host in result.hosts) == ["web-1", "web-2"]
    assert "stints 1 to 2" in recorded.values


def test_a_tournament_that_was_killed_before_any_step_goes_on_to_the_same_end(
    recorded: Recorded, tmp_path: Path
) -> None:
    whole, _ = run(tmp_path)
    names = list(recorded.values)
    for last in range(len(names)):
        recorded.values = {}
        recorded.last = last
        with pytest.raises(Killed):
            run(tmp_path)
        before = dict(recorded.values)
        recorded.last = 1000
        again, _ = run(tmp_path)
        assert list(recorded.values) == names
        assert all(recorded.values[name] == value for name, value in before.items())
        assert again.results == whole.results


def test_a_host_that_fails_ends_the_tournament(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(context: Any, run_id: str, question: Question, baseline: dict[str, str]) -> dict[str, Any]:
        document = _stint(context, run_id, question, baseline)
        return document | ({"ended": "host-failed", "judgement": None} if question.stint.number == 2 else {})

    monkeypatch.setattr(searching_tournament, "run_stint", broken)
    searched, steps = run(tmp_path)
    assert steps.stints == 2
    assert len(searched.results) == 2
    assert searched.summary.winner == ""
    assert recorded.values


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("broken_at", range(1, 8))
def test_a_tournament_goes_on_without_a_broken_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    """In the Swiss rounds its match scores for neither; one for the title, or the final, is played again."""
    lost: list[Question] = []

    def broken(context: Any, run_id: str, question: Question, baseline: dict[str, str]) -> dict[str, Any]:
        document = _stint(context, run_id, question, baseline)
        if lost or question.stint.number < broken_at or "web-2" not in question.trial.hosts:
            return document
        lost.append(question)
        return document | {"ended": "host-failed", "judgement": None, "failed_hosts": ["web-2"]}

    def without(_context: Any, _run_id: str, baseline: dict[str, str], why: dict[str, str]) -> dict[str, Any]:
        return {"baseline": {host: baseline[host] for host in baseline if host not in why}, "enough": True}

    monkeypatch.setattr(searching_tournament, "run_stint", broken)
    monkeypatch.setattr(searching, "go_on_without", without)
    searched, steps = run(tmp_path)
    assert len(lost) == 1
    assert steps.baseline == {"web-1": BASELINE["web-1"]}
    assert steps.lost_in_a_row == 0
    numbers = [result.trial for result in searched.results]
    assert numbers == list(range(1, len(numbers) + 1))
    swiss = lost[0].why.startswith("round")
    assert [result.reason for result in searched.results].count("host-failed") == swiss
    (kept,) = (result for result in searched.results if result.verdict == "KEEP")
    assert kept.hosts == ["web-1"]
    # A lost match of the Swiss rounds may cost a candidate its place among the challengers, never the proof.
    assert kept.variant in ({"v2", "v3"} if swiss else {"v2"})


@pytest.mark.usefixtures("recorded")
def test_too_many_broken_hosts_in_a_row_end_the_tournament(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: Any, run_id: str, question: Question, baseline: dict[str, str]) -> dict[str, Any]:
        document = _stint(context, run_id, question, baseline)
        return document | {"ended": "host-failed", "judgement": None, "failed_hosts": question.trial.hosts[:1]}

    monkeypatch.setattr(searching_tournament, "run_stint", broken)
    monkeypatch.setattr(
        searching, "go_on_without", lambda _context, _run_id, baseline, _why: {"baseline": baseline, "enough": True}
    )
    searched, steps = run(tmp_path)
    assert steps.too_many_lost
    assert searched.summary.winner == ""
    assert searched.results[-1].reason == "host-failed"
