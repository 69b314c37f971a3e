"""A run's recorded input: what `controller resume` begins with where no step was recorded before the kill."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from controller.model.errors import BadInput
from controller.model.experiment import Experiment, Frozen
from controller.model.project import Project
from controller.model.run import Budget

REQUEST_FILE = "request.json"


class Request(Frozen):
    """What a run was asked for, as far as it can be gone on with."""

    run_id: str
    started_at: str
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


def read_request(project: Project, run_id: str, fleet: str) -> dict[str, Any]:
    """The recorded input of that run on that fleet. Raises BadInput when it is gone, damaged or another run's."""
    path = project.runs / run_id / REQUEST_FILE
    try:
        request: dict[str, Any] = json.loads(path.read_bytes())
        read = Request.model_validate(request)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _unfit(path, run_id, f"is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _unfit(path, run_id, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if (read.run_id, read.fleet or fleet) != (run_id, fleet):
        whose = f"run {read.run_id}" + (f" on fleet {read.fleet}" if read.fleet else "")
        raise _unfit(path, run_id, f"is that of {whose}, not of run {run_id} on fleet {fleet}: was the folder copied?")
    return request


def _unfit(path: object, run_id: str, what: str) -> BadInput:
    return BadInput(
        f"the run's input {what}",
        where=str(path),
        next_step=f"restore it, or put the hosts on their baseline and seal what the run has: controller end {run_id}",
    )
