"""A run: one `controller optimize`. These are the documents in `runs/<run_id>/`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.model.experiment import Frozen, ParameterName, ParameterValue
from controller.model.trial import Effect, TrialPlan, TrialResult

# A tournament can be read, and no longer be begun.
Strategy = Literal["first-winner", "race", "tournament", "bayes"]
RunStatus = Literal["running", "completed", "failed", "interrupted", "taken-over", "unverified"]


class Budget(Frozen):
    """How much a search of ranges may take, an experiment, before its winner is confirmed."""

    minutes: float = Field(default=20.0, gt=0, le=10_000)
    trials: int = Field(default=40, ge=2, le=2000)
    least_progress: float = Field(
        default=0.0005, ge=0, lt=1, description="gain a minute, a fraction: the search stops when it brings less"
    )


class Importance(Frozen):
    """What one parameter of a winner is worth: the loss without it, measured in a duet against the winner."""

    experiment: str
    parameter: ParameterName
    value: ParameterValue
    trial: int = Field(description="the trial that measured it; 0: it was not measured")
    loss: Effect | None = Field(default=None, description="0.02: without it requests take 2 % longer")
    kept: bool
    note: str = ""


class SearchSummary(Frozen):
    """How the search of one experiment ended."""

    experiment: str
    stopped: str = Field(description="why nothing more was tried")
    tried: int = Field(description="variants measured")
    stints: int
    seconds: float
    winner: str = ""
    importance: list[Importance] = []


class ParetoSet(Frozen):
    """The variants of a pareto experiment, the baseline among them, by whether another one is better in every way."""

    experiment: str
    members: list[str]
    dominated: list[str] = []


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
    soak_seconds: float = Field(default=10.0, description="of trials that a search comes up with; as of each trial")
    hosts_per_trial: int = Field(default=0, description="how many of the hosts measure; 0: all")
    strategy: Strategy = "first-winner"
    budget: Budget = Budget()
    trials: list[TrialPlan] = Field(description="of bayes and tournament empty: each trial's plan is in its folder")


class Pruned(Frozen):
    """`pruned.json`: that the run's evidence was deleted, by `controller prune`."""

    format: int = 1
    at: str = Field(description="when that began, UTC, ISO 8601")
    files: int
    bytes: int


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
    strategy: Strategy = "first-winner"
    searches: list[SearchSummary] = []
    pareto: list[ParetoSet] = Field(default=[], description="one an experiment whose objective is pareto")
    quarantined: dict[str, str] = Field(default={}, description="host -> why the run went on without it")
