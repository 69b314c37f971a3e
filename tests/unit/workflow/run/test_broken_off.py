"""A run that breaks off, whatever by, is told whole: what was measured and kept before, how it ended, what to type."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.files.kept import read_kept
from controller.model.errors import HostFailed, Interrupted, RestoreUnverified
from controller.model.experiment import Experiment
from controller.model.run import RunPlan, RunResult
from controller.model.trial import Stint, TrialPlan, TrialResult
from controller.search.ledger import Entry
from controller.workflow import engine
from controller.workflow.run import optimize
from controller.workflow.run.optimize import Optimize
from controller.workflow.search import race as searching
from controller.workflow.trial.run import run_trial
from tests.unit.workflow.fleet.commit_world import NAMES
from tests.unit.workflow.trial.test_apply_verdict import Fleet

# A process carries out each run once.
NUMBERS = itertools.count(1)
LEVELS = {"l4": 4, "l5": 5}


def about(name: str) -> Experiment:
    return Experiment.model_validate(
        {
            "name": name, "question": "a question?", "why": "because it is so", "sources": ["a page"],
            "risk": {"level": "low", "note": "none"}, "workload": {"requests": [{"path": "/"}], "rate": 50},
            "variants": [
                {"name": name, "parameters": {"nginx_gzip_comp_level": level}} for name, level in LEVELS.items()
            ],
        }
    )  # fmt: skip


def proven(trial: TrialPlan, verdict: str = "KEEP") -> TrialResult:
    return TrialResult.model_validate(
        {
            "trial": trial.number, "experiment": trial.experiment.name, "variant": trial.variant.name,
            "hosts": trial.hosts, "verdict": verdict, "reason": "proven-gain" if verdict == "KEEP" else "outdone",
            "objective": "p50", "design": "duet", "effect": None, "confirmed_effect": None, "evidence": 128,
            "threshold": 100, "pairs": 14, "requests": 200, "errors": 0, "seconds": 20, "probing_seconds": 12,
            "parameters": dict(trial.variant.parameters),
        }
    )  # fmt: skip


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    fleet = Fleet(tmp_path, monkeypatch)
    monkeypatch.setattr(optimize, "check", lambda *_, **__: dict(fleet.confirmed))
    monkeypatch.setattr(optimize, "take_live", lambda _context, _run, _trial, result, _baseline: result)
    return fleet


def carried_out(fleet: Fleet, experiments: list[Experiment], strategy: str) -> RunResult:
    """The run, and once more, as who resumes it gets it."""
    run_id = f"r-{next(NUMBERS)}"
    request: dict[str, Any] = {
        "run_id": run_id, "seed": 1, "started_at": "2026-01-01T00:00:00Z", "strategy": strategy,
        "experiments": [experiment.model_dump(mode="json") for experiment in experiments],
    }  # fmt: skip
    documents = []
    workflow = Optimize(fleet.context, run_id)
    for _ in range(2):
        with engine.launched(f"sqlite:///{fleet.context.project.root}/steps.db", run_id):
            documents.append(engine.start(workflow.run, run_id, request)())
    assert documents[0] == documents[1]
    return RunResult.model_validate(documents[0]["result"])


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both variants are measured in one stint each: the second is futile, the first is proven."""

    def measure(steps: Any, trial: TrialPlan, _proposal: object, **_: Any) -> Entry:
        stint = Stint(number=len(steps.ledger) + 1, alone=True, pairs_per_host=3, sequence=["web-1"])
        ended = "proven-gain" if steps.ledger else "futile"
        entry = Entry.model_validate(
            {"trial": trial.number, "variant": trial.variant, "stint": stint, "judgement": None, "ended": ended}
        )
        steps.ledger.append(entry)
        return entry

    def gather(_steps: Any, plans: dict[int, TrialPlan], ledger: list[Entry], _outdone: str) -> list[TrialResult]:
        ends = {entry.trial: entry.ended for entry in ledger}
        return [proven(plans[number], "KEEP" if ends[number] == "proven-gain" else "REVERT") for number in sorted(ends)]

    monkeypatch.setattr(searching.Steps, "measure", measure)
    monkeypatch.setattr(searching.Steps, "live", lambda _steps, _trial, result: result)
    monkeypatch.setattr(searching, "gather", gather)
    monkeypatch.setattr(searching, "recorded_plan", lambda _folder, trial: trial)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RestoreUnverified("the baseline could not be verified", where="web-1"), "unverified"),
        (OSError(28, "No space left on device"), "failed"),
    ],
)
@pytest.mark.parametrize("where", ["settle", "live"])
def test_a_race_whose_winner_cannot_be_settled_tells_all_that_it_has_measured(
    where: str, error: Exception, status: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    race(monkeypatch)
    monkeypatch.setattr(searching if where == "settle" else searching.Steps, where, failing(error))
    ended = carried_out(fleet, [about("gzip")], "race")
    assert ended.status == status and str(error.args[-1]) in ended.message
    assert {(trial.variant, trial.pairs) for trial in ended.trials} == {("l4", 14), ("l5", 14)}
    # What is not on the hosts was not kept.
    assert {trial.verdict for trial in ended.trials} == {"REVERT"}
    assert fleet.confirmed == fleet.live == fleet.baseline


def measured_by(fleet: Fleet, second: Callable[..., Any]) -> Callable[..., Any]:
    """The first experiment's first variant is proven; what becomes of the second's is said."""

    def run(context: object, plan: RunPlan, trial: TrialPlan, baseline: dict[str, str]) -> Any:
        if trial.experiment.name == "second":
            return second(context, plan, trial, baseline)
        folder = fleet.context.run_directory(plan.run_id) / "trials" / str(trial.number)
        folder.mkdir(parents=True)
        planned = fleet.measured(list(NAMES))
        ids = {"control_ids": planned.control_ids, "variant_ids": planned.variant_ids}
        (folder / "plan.json").write_text(trial.model_copy(update=ids).model_dump_json())
        return proven(trial)

    return run


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SystemExit(1), ZeroDivisionError("by a page without bytes")]
)
def test_what_an_earlier_trial_has_kept_is_told_whatever_ends_a_later_one(
    error: BaseException, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimize, "run_trial", measured_by(fleet, failing(error)))
    ended = carried_out(fleet, [about("first"), about("second")], "first-winner")
    assert ended.status == "failed" and "a fault of Ratchet's own" in ended.message
    assert [(trial.experiment, trial.verdict) for trial in ended.trials] == [("first", "KEEP")]
    assert read_kept(fleet.context.project, "web") == {"nginx_gzip_comp_level": 4}
    # Put back is what that one has left, not what the run had found.
    assert fleet.confirmed == fleet.live != fleet.baseline
    assert type(error).__name__ in (fleet.context.run_directory(ended.run_id) / "traceback.txt").read_text()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HostFailed("unreachable over SSH", where="web-2"), "host-failed"),
        (Interrupted("stopped by the operator"), "interrupted"),
        (ZeroDivisionError("by a page without bytes"), "host-failed"),
    ],
)
def test_a_trial_that_was_measured_is_told_though_its_live_check_breaks_off(
    error: Exception, reason: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimize, "run_trial", measured_by(fleet, failing(AssertionError())))
    monkeypatch.setattr(optimize, "take_live", failing(error))
    ended = carried_out(fleet, [about("first")], "first-winner")
    (trial,) = ended.trials
    assert (trial.verdict, trial.reason, trial.pairs) == ("REVERT", reason, 14)
    assert str(error.args[0]) in trial.note
    assert fleet.confirmed == fleet.live == fleet.baseline


def test_who_has_stopped_a_run_is_not_told_to_resume_what_is_at_its_end(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:

    def stopped(context: Any, *rest: Any) -> Any:
        context.stop.request()
        return run_trial(context, *rest)

    monkeypatch.setattr(optimize, "run_trial", measured_by(fleet, stopped))
    ended = carried_out(fleet, [about("first"), about("second")], "first-winner")
    assert ended.status == "interrupted" and [trial.verdict for trial in ended.trials] == ["KEEP"]
    assert "run the command again for what it has not measured; this run is at an end" in ended.message
    assert "resume" not in ended.message


def test_a_keep_commits_what_was_measured_though_somebody_has_edited_the_inventory_meanwhile(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = measured_by(fleet, failing(AssertionError()))

    def edited(*asked: Any) -> Any:
        result = measure(*asked)
        fleet.settings["nginx_keepalive_timeout"] = "1s"
        return result

    measured = fleet.measured(list(NAMES)).variant_ids
    monkeypatch.setattr(optimize, "run_trial", edited)
    ended = carried_out(fleet, [about("first")], "first-winner")
    assert [(trial.verdict, trial.reason) for trial in ended.trials] == [("KEEP", "proven-gain")]
    assert fleet.confirmed == fleet.live == measured
