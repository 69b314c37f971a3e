"""What a KEEP commits is what was measured, whatever became of the inventory meanwhile; and what it says of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.ansible import HostOutcome, PlaybookResult
from controller.adapters.files.kept import kept_file, read_kept, with_kept, write_kept_text
from controller.model.errors import FleetLocked, RestoreUnverified
from controller.model.experiment import Experiment, ParameterValue
from controller.model.steps import Settled
from controller.model.trial import TrialPlan, TrialResult, TrialTiming
from controller.workflow.fleet import configurations
from controller.workflow.fleet.claims import Claims
from controller.workflow.fleet.configurations import arm_ids, push
from controller.workflow.fleet.open_commits import finish_open
from controller.workflow.trial import apply_verdict
from tests.unit.workflow.fleet.commit_world import LATER, NAMES, Killed, World


class Fleet(World):
    """A world with an inventory: `settings` is what its files say, `own` what host_vars say."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        self.settings: dict[str, Any] = {"nginx_gzip": False}
        self.own: dict[str, dict[str, Any]] = {}
        self.live = self.confirmed = {name: self.rendered(name) for name in NAMES}
        self.confirmed = dict(self.live)
        self.staged = [*self.live.values()]
        monkeypatch.setattr(configurations, "run_playbook", self.play)
        monkeypatch.setattr(configurations, "read_status", self.status)
        monkeypatch.setattr(configurations, "on_each_host", self.one_after_another)
        monkeypatch.setattr(apply_verdict, "edited_on_baseline", lambda *_: {})
        self.baseline = dict(self.confirmed)

    def rendered(self, host: str, parameters: dict[str, Any] | None = None) -> str:
        kept = read_kept(self.context.project, "web")
        values = self.settings | kept | self.own.get(host, {}) | (parameters or {})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def play(
        self, _project: object, _fleet: str, playbook: str, *, limit: list[str], extra_vars: dict[str, Any], **_: Any
    ) -> PlaybookResult:
        hosts = {}
        for name in limit:
            outcome = HostOutcome()
            if playbook == "push.yml":
                ids = {arm["name"]: self.rendered(name, arm["parameters"]) for arm in extra_vars["variant_arms"]}
                self.staged += ids.values()
                diff = f"--- live\n+++ {ids['baseline']}\n-  keepalive_timeout 65;\n+  keepalive_timeout 1;\n"
                outcome.documents.append(
                    {
                        "configurations": {
                            arm: {"id": each, "ok": True, "diff_from_live": diff} for arm, each in ids.items()
                        }
                    }
                )
            else:
                assert playbook == "rollback.yml"
                self.live[name] = self.confirmed[name]
                outcome.documents.append({"confirmed": self.confirmed[name]})
            hosts[name] = outcome
        return PlaybookResult(playbook, 0, 0.1, hosts, "")

    def measured(self, hosts: list[str], requires: dict[str, ParameterValue] | None = None) -> TrialPlan:
        experiment = Experiment.model_validate(
            {
                "name": "gzip", "question": "a question?", "why": "because it is so", "sources": ["a page"],
                "requires": requires or {}, "risk": {"level": "low", "note": "none"},
                "variants": [{"name": "l4", "parameters": {"nginx_gzip_comp_level": 4}}],
                "workload": {"requests": [{"path": "/"}], "rate": 50},
            }
        )  # fmt: skip
        _, staged = push(self.context, experiment, experiment.variants[0], hosts=hosts)
        controls, variants = arm_ids(staged, self.baseline, "web")
        return TrialPlan(
            number=1, experiment=experiment, variant=experiment.variants[0], design="duet",
            timing=TrialTiming.of(experiment.timing, "duet"), hosts=hosts, seed=1, alpha=0.05, variants_in_run=1,
            control_ids=controls, variant_ids=variants,
        )  # fmt: skip

    def settle(self, trial: TrialPlan, verdict: str = "KEEP") -> Settled:
        result = TrialResult.model_validate(
            {
                "trial": 1, "experiment": "gzip", "variant": "l4", "hosts": trial.hosts, "verdict": verdict,
                "reason": "proven-gain" if verdict == "KEEP" else "futile", "objective": "throughput",
                "design": "duet", "effect": {"estimate": 0.2, "low": 0.1, "high": 0.3}, "confirmed_effect": None,
                "evidence": 128, "threshold": 100, "pairs": 14, "requests": 200, "errors": 0, "seconds": 20,
                "probing_seconds": 12, "parameters": dict(trial.variant.parameters),
            }
        )  # fmt: skip
        return apply_verdict.settle(self.context, "r-1", trial, result, self.baseline)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(tmp_path, monkeypatch)


def test_the_id_that_was_measured_is_committed_though_the_inventory_was_edited_meanwhile(fleet: Fleet) -> None:
    trial = fleet.measured(list(NAMES))
    fleet.settings["nginx_keepalive_timeout"] = "1s"
    settled = fleet.settle(trial)
    assert fleet.confirmed == trial.variant_ids == settled.baseline
    assert settled.result.verdict == "KEEP" and settled.stop is None
    # And what the next deployment would change is told, with its lines and whose word is wanted.
    told = [str(event) for event in fleet.events if "as it was measured, but the inventory renders to" in str(event)]
    assert len(told) == 3 and all("+  keepalive_timeout 1;" in text and "commit.yml" in text for text in told)


def test_an_inventory_that_says_what_was_kept_is_nothing_to_tell(fleet: Fleet) -> None:
    fleet.settle(fleet.measured(list(NAMES)))
    assert "inventory renders to" not in str(fleet.events)
    text = kept_file(fleet.context.project, "web").read_text()
    # As the report says it: a fifth less time is a quarter more a second.
    assert "nginx_gzip_comp_level: 4 # r-1, gzip/l4, throughput 25.0 % higher" in text


def test_a_host_variable_that_beats_the_kept_one_is_told(fleet: Fleet) -> None:
    fleet.own = {"web-2": {"nginx_gzip_comp_level": 9}}
    fleet.live["web-2"] = fleet.confirmed["web-2"] = fleet.baseline["web-2"] = fleet.rendered("web-2")
    trial = fleet.measured(list(NAMES))
    fleet.settle(trial)
    assert fleet.confirmed == trial.variant_ids
    told = [event for event in fleet.events if "inventory renders to" in str(event)]
    assert [event.host for event in told] == ["web-2"] and "beats zz-kept.yml" in str(told[0])  # type: ignore[union-attr]


def test_what_both_arms_required_is_kept_with_the_variant_as_it_was_measured(fleet: Fleet) -> None:
    trial = fleet.measured(["web-1"], requires={"nginx_live_log": True})
    settled = fleet.settle(trial)
    assert fleet.confirmed["web-1"] == trial.variant_ids["web-1"] != trial.control_ids["web-1"]
    assert read_kept(fleet.context.project, "web") == {"nginx_live_log": True, "nginx_gzip_comp_level": 4}
    assert settled.result.parameters == {"nginx_live_log": True, "nginx_gzip_comp_level": 4}
    assert {name: fleet.rendered(name) for name in NAMES} == fleet.confirmed


def test_what_was_required_and_is_the_baseline_s_already_is_not_written_again(fleet: Fleet) -> None:
    fleet.settle(fleet.measured(list(NAMES), requires={"nginx_gzip": False}))
    assert read_kept(fleet.context.project, "web") == {"nginx_gzip_comp_level": 4}


def test_what_only_the_measuring_host_has_of_what_is_required_is_kept_for_the_others_too(fleet: Fleet) -> None:
    fleet.own = {"web-1": {"nginx_live_log": True}}
    fleet.live["web-1"] = fleet.confirmed["web-1"] = fleet.baseline["web-1"] = fleet.rendered("web-1")
    settled = fleet.settle(fleet.measured(["web-1"], requires={"nginx_live_log": True}))
    assert read_kept(fleet.context.project, "web") == {"nginx_live_log": True, "nginx_gzip_comp_level": 4}
    assert {name: fleet.rendered(name) for name in NAMES} == fleet.confirmed == settled.baseline
    assert "inventory renders to" not in str(fleet.events)


def test_hosts_that_have_not_measured_get_the_same_laid_over_theirs(fleet: Fleet) -> None:
    trial = fleet.measured(["web-1"])
    fleet.settle(trial)
    assert fleet.confirmed["web-1"] == trial.variant_ids["web-1"]
    assert fleet.confirmed["web-3"] == fleet.rendered("web-3")


def test_settings_of_a_host_that_has_not_measured_are_never_deployed_with_a_keep(fleet: Fleet) -> None:
    trial = fleet.measured(["web-1"])
    fleet.own = {"web-3": {"nginx_sendfile": False}}
    settled = fleet.settle(trial)
    assert settled.result.reason == "commit-failed" and "not deployed" in settled.result.note
    assert fleet.confirmed == fleet.live == fleet.baseline
    assert read_kept(fleet.context.project, "web") == {}


def test_what_the_host_has_forgotten_meanwhile_is_staged_again_or_nothing_is_committed(fleet: Fleet) -> None:
    trial = fleet.measured(list(NAMES))
    fleet.staged = [*fleet.baseline.values()]
    fleet.settle(trial)
    assert fleet.confirmed == trial.variant_ids


def test_a_run_that_is_resumed_late_neither_commits_over_a_newer_baseline_nor_calls_it_unrestored(fleet: Fleet) -> None:
    trial = fleet.measured(list(NAMES))
    text = with_kept(fleet.context.project, "web", parameters={"nginx_worker_processes": 8}, comment="r-2")
    write_kept_text(fleet.context.project, "web", text)
    newer = {name: fleet.rendered(name) for name in NAMES}
    fleet.live, fleet.confirmed = dict(newer), dict(newer)
    for name, configuration in newer.items():
        fleet.store.record_baseline(
            fleet="web", host=name, configuration=configuration, run_id="r-2", recorded_at="2026-01-02"
        )
    for verdict in ("KEEP", "REVERT"):
        settled = fleet.settle(trial, verdict)
        assert settled.result.verdict == "REVERT"
        assert fleet.confirmed == fleet.live == newer
        # It was planned against another baseline, and what it leaves is its own.
        assert settled.stop.status == "failed" and "a later run has changed the baseline" in str(settled.stop)
        assert settled.baseline == fleet.baseline
    assert read_kept(fleet.context.project, "web") == {"nginx_worker_processes": 8}


def test_a_host_in_doubt_ends_the_run_loudly_and_with_what_to_type(fleet: Fleet) -> None:
    trial = fleet.measured(list(NAMES))
    fleet.refusing = {"web-3": {"confirm"}}
    settled = fleet.settle(trial)
    assert settled.result.verdict == "KEEP"
    assert settled.stop.status == "unverified"
    assert "web-3" in settled.stop.message and "controller rollback --fleet web" in settled.stop.message
    assert settled.baseline["web-3"] == trial.variant_ids["web-3"]


def test_a_baseline_that_cannot_be_verified_after_a_failed_commit_is_not_called_restored(fleet: Fleet) -> None:
    trial = fleet.measured(list(NAMES))
    fleet.refusing = {"web-2": {"switch", "rollback"}}
    fleet.at = lambda _number, call: fleet.down.add("web-2") if call == "switch web-2" else None
    with pytest.raises(RestoreUnverified):
        fleet.settle(trial)


@pytest.mark.parametrize("measured", [["web-1"], list(NAMES)])
@pytest.mark.parametrize("between", [False, True])
def test_a_trial_whose_controller_dies_at_any_call_of_its_commit_is_told_as_the_hosts_are(
    between: bool, measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, or resumed after another command has finished the commit."""
    number, verdicts = 1, set()
    while True:
        (tmp_path / str(number)).mkdir()
        with monkeypatch.context() as patch:
            fleet = Fleet(tmp_path / str(number), patch)
            trial = fleet.measured(measured)

            def at(call: int, _what: str, limit: int = number) -> None:
                if call == limit:
                    raise Killed

            fleet.at = at
            try:
                fleet.settle(trial)
                break
            except Killed:
                pass
            fleet.at = lambda *_: None
            fleet.lease_ends()
            if between:
                finish_open(fleet.context)
            settled = fleet.settle(trial)
            kept = settled.result.verdict == "KEEP"
            assert settled.stop is None or not kept, settled.stop
            assert kept == (fleet.confirmed != fleet.baseline)
            assert bool(read_kept(fleet.context.project, "web")) == kept
            assert fleet.live == fleet.confirmed == settled.baseline
            verdicts.add(kept)
        number += 1
    assert number > 8 and True in verdicts


def test_a_fleet_that_is_taken_over_in_the_middle_of_the_commit_is_not_told_as_reverted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = fleet.measured(list(NAMES))
    fleet.refusing = {"web-2": {"confirm"}}
    lost = FleetLocked("run r-1 was taken over by run r-2", where="web-2")
    monkeypatch.setattr(Claims, "refused", lambda _claims, said: lost if said else None)
    settled = fleet.settle(trial)
    assert settled.result.verdict == "KEEP"
    assert settled.stop.status == "taken-over" and "confirmed on web-1, web-3" in settled.stop.message


def test_what_somebody_deploys_while_a_trial_is_measured_is_told_and_stays(fleet: Fleet) -> None:
    trial = fleet.measured(list(NAMES))
    fleet.live["web-2"] = fleet.confirmed["web-2"] = LATER
    settled = fleet.settle(trial, "REVERT")
    assert fleet.confirmed["web-2"] == LATER == fleet.live["web-2"]
    assert settled.result.verdict == "REVERT" and "confirmed outside a run" in str(fleet.events)
    # The next trial is measured against it.
    assert settled.stop is None and settled.baseline == fleet.baseline | {"web-2": LATER}
