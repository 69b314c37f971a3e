"""What a run tells of a trial whose verdict could not be carried out."""

from __future__ import annotations

from controller.model.errors import RestoreUnverified
from controller.model.trial import ReasonCode, TrialResult, VerdictName
from controller.workflow.optimize import not_settled

ERROR = RestoreUnverified("unreachable over SSH", where="lab-1", next_step="controller rollback")


def result(verdict: VerdictName, reason: ReasonCode, note: str) -> TrialResult:
    return TrialResult(
        trial=1, experiment="level", variant="level-4", hosts=["lab-1"], verdict=verdict, reason=reason, note=note,
        objective="p50", design="duet", effect=None, confirmed_effect=None, evidence=128, threshold=100, pairs=12,
        requests=200, errors=0, seconds=20, probing_seconds=12,
    )  # fmt: skip


def test_a_proven_variant_that_could_not_be_committed_is_no_keep() -> None:
    told = not_settled(result("KEEP", "proven-gain", ""), ERROR)
    assert (told.verdict, told.reason, told.note) == ("REVERT", "commit-failed", "lab-1: unreachable over SSH")
    assert told.pairs == 12


def test_why_a_trial_was_reverted_is_not_lost_when_its_host_could_not_be_verified() -> None:
    reverted = result("REVERT", "host-failed", "lab-1: the agent ended without saying why")
    assert not_settled(reverted, ERROR) == reverted
