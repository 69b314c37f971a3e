"""A run: one `controller optimize`. These are the documents in `runs/<run_id>/`."""

from __future__ import annotations

from typing import Literal

from controller.model.experiment import Frozen
from controller.model.trial import TrialPlan, TrialResult

RunStatus = Literal["running", "completed", "failed", "interrupted", "unverified"]


class RunPlan(Frozen):
    """`plan.json`: written before the first measurement."""

    format: int = 1
    run_id: str
    fleet: str
    seed: int
    created_at: str
    ratchet_version: str
    hosts: list[str]
    lease_seconds: int
    alpha: float
    trials: list[TrialPlan]


class RunResult(Frozen):
    """`verdict.json`, and the document of `optimize --output json`. Baselines are host -> configuration id."""

    format: int = 1
    run_id: str
    fleet: str
    seed: int
    status: RunStatus
    started_at: str
    seconds: float
    trials: list[TrialResult]
    baseline_before: dict[str, str]
    baseline_after: dict[str, str]
    message: str = ""
