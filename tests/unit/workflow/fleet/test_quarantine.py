"""Who is left out, when that is too many, and what the run says of them at its end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.adapters.audit import AuditLog
from controller.adapters.store import Store
from controller.cli.optimize import exit_code
from controller.model.errors import HandEdited, HostFailed, RatchetError, RestoreUnverified
from controller.model.events import Event
from controller.model.fleet import Fleet, FleetSettings, Host, Trials
from controller.model.project import Project
from controller.model.run import RunResult
from controller.model.steps import Settled
from controller.model.trial import TrialResult
from controller.workflow.context import RunContext
from controller.workflow.fleet.claims import Claims
from controller.workflow.fleet.quarantine import (
    leave_out,
    named_hosts,
    tell_left_out,
    too_few,
    too_many_in_a_row,
)
from controller.workflow.run.finalize import tell
from controller.workflow.trial.apply_verdict import settle

ID, OTHER = "a" * 16, "b" * 16
FIT = {"live": ID, "confirmed": ID, "lease": None}


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def context(tmp_path: Path, events: list[Event]) -> RunContext:
    names = ("web-1", "web-2", "web-3", "web-4")
    hosts = [
        Host(name=name, address="192.0.2.1", key_file=tmp_path / "key", known_hosts=tmp_path / "known")
        for name in names
    ]
    trials = Trials(broken_hosts="quarantine", alert=["/bin/sh", "-c", f"cat > {tmp_path}/told; echo no >&2; exit 3"])
    fleet = Fleet(name="web", inventory=tmp_path, settings=FleetSettings(trials=trials), hosts=hosts)
    project = Project(tmp_path)
    store = Store(f"sqlite:///{tmp_path}/r.db")
    for name in names:
        store.record_baseline(fleet="web", host=name, configuration=ID, run_id="", recorded_at="")
    return RunContext(
        project, fleet, store, AuditLog(project, store), events.append, lambda: datetime.now(UTC), Claims()
    )


def result(**changes: Any) -> RunResult:
    before = {f"web-{number}": ID for number in range(1, 5)}
    known: dict[str, Any] = {
        "run_id": "r-1", "fleet": "web", "seed": 1, "status": "completed", "started_at": "", "seconds": 1.0,
        "trials": [], "baseline_before": before, "baseline_after": {},
    }  # fmt: skip
    return RunResult.model_validate(known | changes)


def trial(reason: str) -> dict[str, Any]:
    return {
        "trial": 1, "experiment": "e", "variant": "v", "hosts": ["web-1"], "verdict": "REVERT", "reason": reason,
        "objective": "p50", "design": "duet", "effect": None, "confirmed_effect": None, "evidence": 0, "threshold": 0,
        "pairs": 0, "requests": 0, "errors": 0, "seconds": 0, "probing_seconds": 0,
    }  # fmt: skip


def test_an_error_s_place_names_hosts_whole() -> None:
    hosts = ["web-1", "web-10", "web-2"]
    assert named_hosts(RestoreUnverified("x", where="web-10, web-2"), hosts) == ["web-10", "web-2"]
    assert named_hosts(RestoreUnverified("x", where="web-1 (192.0.2.1 port 22)"), hosts) == ["web-1"]
    assert named_hosts(RestoreUnverified("x", where="fleet web"), hosts) == []


def test_half_of_the_hosts_is_enough_and_fewer_is_not(context: RunContext) -> None:
    assert too_few(context, {"web-1": ID, "web-2": ID}) is None
    few = too_few(context, {"web-1": ID})
    assert few is not None
    assert "only 1 of 4 hosts" in few.what


def test_three_trials_in_a_row_that_lost_hosts_are_too_many(context: RunContext) -> None:
    lost, failed, won = (
        TrialResult.model_validate(trial(reason)) for reason in ("host-failed", "commit-failed", "futile")
    )
    assert too_many_in_a_row(context, [won, lost, failed, lost])
    assert not too_many_in_a_row(context, [lost, lost, won, lost])
    assert not too_many_in_a_row(context, [lost, lost])


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[RatchetError]]:
    """Host -> the error that its rollback ends in; no playbook runs. Hosts are in tests/integration/optimize."""
    errors: dict[str, type[RatchetError]] = {}

    def roll_back(_context: RunContext, baseline: dict[str, str]) -> None:
        for kind in (RestoreUnverified, HandEdited):
            named = sorted(host for host in baseline if errors.get(host) is kind)
            if named:
                raise kind(f"{kind.__name__} on {named}", where=", ".join(named))

    monkeypatch.setattr("controller.workflow.fleet.quarantine.roll_back", roll_back)
    return errors


def accounted(context: RunContext) -> list[tuple[str, str]]:
    return [(entry["action"], entry["state"]) for entry in context.audit.entries()]


def settled(context: RunContext, **changes: Any) -> Settled:
    plan = SimpleNamespace(number=1)
    before = {f"web-{number}": ID for number in range(1, 5)}
    ended = TrialResult.model_validate(trial("host-failed") | {"note": "its agent stopped"} | changes)
    return settle(context, "r-1", plan, ended, before)  # type: ignore[arg-type]


def test_a_trial_that_lost_a_host_settles_without_it_and_does_not_stop_the_run(
    context: RunContext, broken: dict[str, type[RatchetError]]
) -> None:
    broken["web-2"] = RestoreUnverified
    outcome = settled(context, failed_hosts=["web-2"])
    assert sorted(outcome.baseline) == ["web-1", "web-3", "web-4"]
    assert outcome.stop is None
    assert context.store.quarantined("web")["web-2"].why == "its agent stopped; RestoreUnverified on ['web-2']"


def test_hosts_that_turn_out_broken_or_edited_in_a_rollback_are_left_out_too(
    context: RunContext, broken: dict[str, type[RatchetError]]
) -> None:
    broken |= {"web-1": HandEdited, "web-3": RestoreUnverified}
    outcome = settled(context, reason="futile", note="")
    assert sorted(outcome.baseline) == ["web-2", "web-4"]
    assert outcome.stop is None


@pytest.mark.usefixtures("broken")
def test_a_rollback_is_in_the_audit_log_also_when_it_raises(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(context, reason="futile", note="")
    assert accounted(context) == [("rollback", "begun"), ("rollback", "ok")]
    begun, ended = context.audit.entries()
    assert (begun["why"], ended["why"]) == ("e/v: REVERT futile", "baseline restored and verified")
    assert sorted(ended["evidence"]["baseline"]) == ["web-1", "web-2", "web-3", "web-4"]

    def roll_back(_context: RunContext, _baseline: dict[str, str]) -> None:
        raise RestoreUnverified("nobody knows", where="fleet web")

    monkeypatch.setattr("controller.workflow.fleet.quarantine.roll_back", roll_back)
    with pytest.raises(RestoreUnverified):
        settled(context, reason="futile", note="")
    assert accounted(context)[2:] == [("rollback", "begun"), ("rollback", "failed")]
    assert context.audit.entries()[-1]["why"] == "fleet web: nobody knows"


@pytest.mark.usefixtures("broken")
def test_a_commit_that_fails_is_in_the_audit_log(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(*_: Any) -> None:
        raise HostFailed("nginx refuses", where="web-2")

    monkeypatch.setattr("controller.workflow.trial.apply_verdict.carry_out", carry_out)
    monkeypatch.setattr("controller.workflow.trial.apply_verdict._planned", lambda *_: None)
    monkeypatch.setattr("controller.workflow.trial.apply_verdict.edited_on_baseline", lambda *_: {})
    plan = SimpleNamespace(number=1)
    kept = TrialResult.model_validate(trial("proven-gain") | {"verdict": "KEEP"})
    outcome = settle(context, "r-1", plan, kept, {f"web-{number}": ID for number in range(1, 5)})  # type: ignore[arg-type]
    assert outcome.result.reason == "commit-failed"
    begun, *quarantined, ended = context.audit.entries()
    assert (begun["action"], begun["why"]) == ("commit", "e/v: KEEP proven-gain")
    assert {entry["action"] for entry in quarantined} == {"quarantine"}
    assert (ended["action"], ended["state"], ended["began"]) == ("commit", "failed", 1)
    assert ended["why"] == "commit-failed: web-2: nginx refuses; baseline restored and verified on 3 hosts"
    assert ended["hosts"] == ["web-1", "web-3", "web-4"]


@pytest.mark.usefixtures("broken")
def test_a_trial_that_leaves_fewer_than_half_of_the_hosts_stops_the_run(context: RunContext) -> None:
    outcome = settled(context, failed_hosts=["web-1", "web-2", "web-3"])
    assert outcome.stop.status == "failed"
    assert "only 1 of 4 hosts" in outcome.stop.message


@pytest.mark.usefixtures("broken")
def test_a_failure_that_no_host_can_be_blamed_for_stops_the_run(context: RunContext) -> None:
    assert settled(context, failed_hosts=[]).stop.status == "failed"


def test_a_left_out_host_is_recorded_told_and_accounted_for(context: RunContext, events: list[Event]) -> None:
    leave_out(context, "r-1", {"web-2": "unreachable"})
    assert context.store.quarantined("web")["web-2"].why == "unreachable"
    assert any("quarantined" in str(event) and "web-2" in str(event) for event in events)
    assert accounted(context) == [("quarantine", "begun"), ("quarantine", "ok")]
    assert context.audit.entries()[0]["evidence"] == {"run": "r-1", "why": {"web-2": "unreachable"}}
    context.store.end_quarantine(fleet="web", host="web-2")
    assert context.store.quarantined("web") == {}


def test_a_run_that_completed_without_a_host_says_so_and_does_not_exit_with_0(context: RunContext) -> None:
    left = {"web-1": ID, "web-3": ID, "web-4": ID}
    leave_out(context, "r-1", {"web-2": "its agent stopped"})
    told = tell_left_out(context, result(), left, {"web-2": FIT})
    assert told.status == "completed"
    assert told.quarantined == {"web-2": "its agent stopped"}
    assert "web-2 is quarantined: its agent stopped" in told.message
    assert exit_code(told) == 3
    assert exit_code(result()) == 0


@pytest.mark.parametrize("status", [None, FIT | {"live": OTHER}, FIT | {"lease": {"seconds_left": 3}}])
def test_a_lost_host_whose_baseline_cannot_be_shown_makes_the_run_unverified(
    context: RunContext, status: dict[str, Any] | None
) -> None:
    leave_out(context, "r-1", {"web-2": "its agent stopped"})
    told = tell_left_out(context, result(), {"web-1": ID}, {"web-2": status} if status else {})
    assert told.status == "unverified"
    assert exit_code(told) == 5
    assert "web-2: its baseline could not be verified" in told.message


def test_a_host_that_the_run_never_touched_cannot_make_it_unverified(context: RunContext) -> None:
    leave_out(context, "r-1", {"web-2": "unreachable"})
    told = tell_left_out(context, result(baseline_before={"web-1": ID}), {"web-1": ID}, {})
    assert told.status == "completed"
    assert exit_code(told) == 3


def test_a_host_that_was_set_up_anew_keeps_no_earlier_run_from_its_end(context: RunContext) -> None:
    context.store.forget("web", ["web-2"])
    leave_out(context, "r-2", {"web-2": "has no confirmed baseline yet"})
    told = tell_left_out(context, result(), {"web-1": ID}, {"web-2": FIT})
    assert told.status == "unverified" and "web-2: its baseline could not be verified" in told.message


def test_the_alert_command_gets_one_line_of_json_and_its_failure_is_a_notice(
    context: RunContext, events: list[Event], tmp_path: Path
) -> None:
    tell(context, result())
    assert not (tmp_path / "told").exists()
    tell(context, result(status="failed", message="two\nlines"))
    assert (tmp_path / "told").read_text() == (
        '{"fleet": "web", "message": "two\\nlines", "quarantined": {}, "run": "r-1", "status": "failed"}\n'
    )
    assert "the alert command ended with 3: no" in str(events[-1])
