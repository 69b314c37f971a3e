"""The thin room around DBOS: durable steps whose results are recorded once and whose side effects may happen twice.

An executor id is one run's id. A launch recovers only the unfinished workflows of its own id, so that starting a new
run never continues an old one by surprise: `controller resume` launches with the old run's id on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy.exc import SQLAlchemyError

from controller.model import errors
from controller.model.errors import HostFailed, RatchetError

# Ours, not DBOS's hash of the source: an upgrade of Ratchet must not strand unfinished runs.
APPLICATION_VERSION = "1"

T = TypeVar("T")


@contextmanager
def launched(database_url: str, executor_id: str) -> Iterator[None]:
    """Launch DBOS for one run. The caller holds the fleet's lock: two launches of one id would steal from each other.

    Configured instances of workflow classes must exist before this is entered.
    Raises HostFailed when the database fails.
    """
    config: DBOSConfig = {
        "name": "ratchet",
        "system_database_url": database_url,
        "executor_id": executor_id,
        "application_version": APPLICATION_VERSION,
        "log_level": "CRITICAL",
    }
    try:
        DBOS(config=config)
        DBOS.launch()
        try:
            yield
        finally:
            DBOS.destroy(workflow_completion_timeout_sec=0)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise HostFailed(
            f"the database failed in the middle of the run: {str(cause).splitlines()[0]}",
            where=executor_id,
            next_step="mend it (free its disk, or put a copy back), then: controller resume. Without it: controller "
            "rollback puts the hosts on their baseline, as their leases do by themselves",
        ) from None


def start(workflow: Callable[..., T], workflow_id: str, *args: Any) -> Callable[[], T]:
    """Start a workflow, or attach to it when it is already there; returns a function that waits for its result."""
    with SetWorkflowID(workflow_id):
        handle = DBOS.start_workflow(workflow, *args)
    return handle.get_result


def _known(kind: type[RatchetError]) -> str:
    """The kind's name in model.errors; an adapter's own kind goes by the one that it is a case of."""
    names: list[str] = [base.__name__ for base in kind.__mro__ if getattr(errors, base.__name__, None) is base]
    return names[0]


def step(name: str, function: Callable[[], T]) -> T:
    """Run one durable step of a workflow; it must be safe to run twice, and return JSON-like values.

    A RatchetError crosses the recording as data: on a replay it is the same error, with its place and next step.
    """

    def guarded() -> dict[str, Any]:
        try:
            return {"value": function()}
        except RatchetError as error:
            return {
                "error": _known(type(error)),
                "what": error.what,
                "where": error.where,
                "next_step": error.next_step,
            }

    outcome: dict[str, Any] = DBOS.run_step({"name": name}, guarded)
    if "error" in outcome:
        kind: type[RatchetError] = getattr(errors, outcome["error"])
        raise kind(outcome["what"], where=outcome["where"], next_step=outcome["next_step"])
    value: T = outcome["value"]
    return value
