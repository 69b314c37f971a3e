"""What a run is asked for, and what its steps record: whoever resumes it gets these, and nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, field_validator

from controller.model.experiment import Experiment, Frozen, ParameterValue
from controller.model.run import Budget, RunResult, RunStatus
from controller.model.trial import TrialResult


class RunRequest(Frozen):
    """What a run was asked for, as far as it can be gone on with: `request.json` in its folder."""

    run_id: str
    started_at: str = Field(description="UTC, ISO 8601")
    seed: int
    experiments: list[Experiment]
    fleet: str | None = Field(default=None, description="not in what earlier versions wrote")
    strategy: Literal["first-winner", "race", "bayes"] = "first-winner"
    adopt: bool = False
    budget: Budget = Budget()

    @field_validator("started_at")
    @classmethod
    def _with_its_zone(cls, value: str) -> str:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("a time in UTC was expected")
        return value


class RunStop(Frozen):
    """That a run comes to its end here, and why."""

    status: RunStatus
    message: str


class Settled(Frozen):
    """What carrying out a verdict came to. `baseline`: host -> configuration id, of the hosts that take part now."""

    result: TrialResult
    baseline: dict[str, str]
    stop: RunStop | None = None


class GoneOn(Frozen):
    """The hosts that a search goes on with, if they are enough."""

    baseline: dict[str, str]
    enough: bool


class Limits(Frozen):
    """What bounds a search of ranges: what each of its hosts has at least, and the parameters that are known."""

    hosts: list[str]
    memory_bytes: int
    cpus: int
    open_files: int
    known: dict[str, ParameterValue]


class WhoHasIt(Frozen):
    """Of a commit: whether it was begun, who has confirmed it, and what that is."""

    begun: bool = False
    confirmed: list[str] = []
    after: dict[str, str] = {}
    why: str = ""


class RunEnded(Frozen):
    """What a workflow returns: its result, without what sealing adds.

    Args:
        left: host -> baseline, of those that took part to the end.
        kept: the text of zz-kept.yml then.
    """

    result: RunResult
    left: dict[str, str]
    kept: str
