"""The thin room around DBOS: durable steps whose results are recorded once and whose side effects may happen twice.

An executor id is one run's id, and so is the version that its workflow is recorded under. A launch recovers the
unfinished workflow of its own id: it puts it on a queue that every process on the same database looks at, and takes
from that queue what has its own version. So no process carries out another's run, whichever fleet that is of.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError

from controller.adapters.store.sqlite import engine_options
from controller.model import errors
from controller.model.errors import BadInput, HostFailed, RatchetError, Unexpected, unexpected

# Ours, not DBOS's hash of the source: an upgrade of Ratchet must not strand unfinished runs.
# It counts up when recorded steps of an earlier release cannot be gone on with.
STEPS_VERSION = "3"

# So that a run under way never waits long for the database.
FORGOTTEN_AT_ONCE = 50

T = TypeVar("T")

log = logging.getLogger(__name__)
# Else DBOS adds a handler of its own, which writes to stderr, and passes nothing on.
logging.getLogger("dbos").addHandler(logging.NullHandler())


@contextmanager
def launched(database_url: str, executor_id: str) -> Iterator[None]:
    """Launch DBOS for one run. The caller holds the fleet's lock: two launches of one id would steal from each other.

    Configured instances of workflow classes must exist before this is entered.
    Raises HostFailed when the database fails.
    """
    config: DBOSConfig = {
        "name": "ratchet",
        "system_database_url": database_url,
        "db_engine_kwargs": engine_options(database_url),
        "executor_id": executor_id,
        "application_version": _version(executor_id),
        "log_level": logging.getLevelName(logging.getLogger("dbos").getEffectiveLevel()),
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
            next_step="mend it (free its disk, or put a copy back), then: controller resume. Meanwhile leases put back "
            "what is not confirmed; by hand: ansible-playbook -i inventory/FLEET playbooks/rollback.yml",
        ) from None


def start(workflow: Callable[..., T], workflow_id: str, *args: Any) -> Callable[[], T]:
    """Start a workflow, or attach to it when it is already there; returns a function that waits for its result.

    Raises BadInput for one that this process cannot go on with.
    """
    known = DBOS.get_workflow_status(workflow_id)
    if known is not None and known.status not in {"PENDING", "ENQUEUED", "SUCCESS"}:
        raise _for_nobody(workflow_id, f"its workflow has ended in {known.status}")
    if known is not None and known.status != "SUCCESS" and known.app_version != _version(workflow_id):
        raise _for_nobody(workflow_id, "it was begun by another release of Ratchet")
    with SetWorkflowID(workflow_id):
        handle = DBOS.start_workflow(workflow, *args)
    return handle.get_result


def _for_nobody(workflow_id: str, why: str) -> BadInput:
    return BadInput(
        f"it cannot be gone on with: {why}",
        where=workflow_id,
        next_step=f"controller end {workflow_id} puts its hosts on their baseline and seals what it has measured",
    )


def recorded_workflows(database_url: str) -> list[str]:
    """Ids of all workflows that the database holds steps of. Raises HostFailed."""
    with _client(database_url) as client:
        found = client.list_workflows(load_input=False, load_output=False) if client is not None else []
    return [status.workflow_id for status in found]


def forget_workflows(database_url: str, workflow_ids: Sequence[str]) -> None:
    """Delete what is recorded of workflows that nobody goes on with. Safe to run twice. Raises HostFailed."""
    with _client(database_url) as client:
        for first in range(0, len(workflow_ids) if client is not None else 0, FORGOTTEN_AT_ONCE):
            client.delete_workflows(list(workflow_ids[first : first + FORGOTTEN_AT_ONCE]))


@contextmanager
def _client(database_url: str) -> Iterator[Any]:
    """DBOS without anything launched; None where nothing was ever launched on the database. Raises HostFailed."""
    url = sa.make_url(database_url)
    try:
        engine = sa.create_engine(url)
        schema = None if url.get_backend_name() == "sqlite" else "dbos"
        launched_before = sa.inspect(engine).has_table("workflow_status", schema=schema)
        engine.dispose()
        if not launched_before:
            yield None
            return
        client = DBOSClient(system_database_url=database_url, retry_connection_errors=False)
        try:
            yield client
        finally:
            client.destroy()
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise HostFailed(
            f"the database failed: {str(cause).splitlines()[0]}",
            next_step="free its disk or lock, or start it, then run the command again",
        ) from None


def _version(workflow_id: str) -> str:
    return f"{STEPS_VERSION}.{workflow_id}"


def _known(kind: type[RatchetError]) -> str:
    """The kind's name in model.errors; an adapter's own kind goes by the one that it is a case of."""
    names: list[str] = [base.__name__ for base in kind.__mro__ if getattr(errors, base.__name__, None) is base]
    return names[0]


def step(name: str, function: Callable[[], T], returns: type[T] | TypeAdapter[T]) -> T:
    """Run one durable step of a workflow; it must be safe to run twice. Recorded is the JSON of what it returns.

    `returns`: what that is: a model, or what pydantic takes for one.

    A RatchetError crosses the recording as data: on a replay it is the same error, with its place and next step.
    Whatever else is raised becomes one (Unexpected), so that the run ends as after any failure.
    """

    recorded: TypeAdapter[T] = returns if isinstance(returns, TypeAdapter) else TypeAdapter(returns)

    def guarded() -> dict[str, Any]:
        started = time.monotonic()
        log.info("step %s begins", name)
        try:
            done = {"value": recorded.dump_python(function(), mode="json")}
            log.info("step %s ended in %.1f s", name, time.monotonic() - started)
            return done
        except RatchetError as error:
            kind, failure, trace = _known(type(error)), error, getattr(error, "traceback", "")
        except (Exception, SystemExit) as error:
            fault = unexpected(error, name)
            kind, failure, trace = "Unexpected", fault, fault.traceback
        log.warning("step %s failed after %.1f s: %s: %s", name, time.monotonic() - started, kind, failure.what)
        return {
            "error": kind,
            "what": failure.what,
            "where": failure.where,
            "next_step": failure.next_step,
            "traceback": trace,
        }

    outcome: dict[str, Any] = DBOS.run_step({"name": name}, guarded)
    if "error" in outcome:
        kind: type[RatchetError] = getattr(errors, outcome["error"])
        failure = kind(outcome["what"], where=outcome["where"], next_step=outcome["next_step"])
        if isinstance(failure, Unexpected):
            failure.traceback = outcome["traceback"]
        raise failure
    return recorded.validate_python(outcome["value"])
