"""A run's recorded input: what `controller resume` begins with where no step was recorded before the kill."""

from __future__ import annotations

from pydantic import ValidationError

from controller.model.errors import BadInput
from controller.model.project import Project
from controller.model.steps import RunRequest

REQUEST_FILE = "request.json"


def read_request(project: Project, run_id: str, fleet: str) -> RunRequest:
    """The recorded input of that run on that fleet. Raises BadInput when it is gone, damaged or another run's."""
    path = project.runs / run_id / REQUEST_FILE
    try:
        read = RunRequest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _unfit(path, run_id, f"is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _unfit(path, run_id, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if (read.run_id, read.fleet or fleet) != (run_id, fleet):
        whose = f"run {read.run_id}" + (f" on fleet {read.fleet}" if read.fleet else "")
        raise _unfit(path, run_id, f"is that of {whose}, not of run {run_id} on fleet {fleet}: was the folder copied?")
    return read


def _unfit(path: object, run_id: str, what: str) -> BadInput:
    return BadInput(
        f"the run's input {what}",
        where=str(path),
        next_step=f"restore it, or put the hosts on their baseline and seal what the run has: controller end {run_id}",
    )
