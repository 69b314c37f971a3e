"""Carry out one run under its lock, its log and the operator's signals; shared by optimize and resume."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from controller.adapters.audit import ENDED_RUN, INTERRUPTED, Outcome
from controller.adapters.files.atomic import write_atomically
from controller.adapters.store import Store, database_url
from controller.cli.logs import log_of_run
from controller.cli.progress import EventLog
from controller.cli.request import REQUEST_FILE
from controller.cli.run_setup import holding, listening, unfinished_rows
from controller.model.errors import BadInput, DatabaseLost, HostFailed, RatchetError
from controller.model.events import Event, Notice
from controller.model.run import RunResult
from controller.model.steps import RunEnded, RunRequest
from controller.workflow import engine
from controller.workflow.context import RunContext
from controller.workflow.run import finalize
from controller.workflow.run.optimize import Optimize

# A database that is silent for so long has been lost; each question has a patience of its own.
DATABASE_SECONDS = 120.0
DATABASE_EVERY = 5.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


def carry_out(context: RunContext, request: RunRequest, *, action: str = "optimize") -> RunResult:
    """Run or continue the workflow of `request` to its end. Raises FleetLocked, BadInput where there is nothing to
    resume any more, and what the workflow raises.

    `action`: how the audit log names it.
    """
    run_id, started_at = request.run_id, request.started_at
    names = ", ".join(experiment.name for experiment in request.experiments)
    hosts, evidence = [host.name for host in context.fleet.hosts], {"run": run_id, "seed": request.seed}
    phase = _Phase()
    with (
        # Around all: what the run has come to is not lost to a Ctrl-C while its hosts are given back.
        listening(context.stop, instead=phase.words),
        holding(context, run_id=run_id, since=context.now()) as held,
        held.accounted(action, hosts, f"{request.strategy}: {names}", evidence) as outcome,
    ):
        if action == "resume":
            unfinished_rows(context.store, run_id)  # whoever had the fleet until now may have ended it
        log = _open_log(context, request)
        shown = context.observer

        def observe(event: Event) -> None:
            log.write(context.now(), event)
            shown(event)

        context = dataclasses.replace(held, observer=observe)
        context.store.record_run(
            run_id=run_id, fleet=context.fleet.name, status="running", started_at=started_at, result="{}"
        )
        tell_unfinished(context, run_id)
        workflow = Optimize(context, run_id)
        try:
            phase.now = "work"
            with engine.launched(database_url(context.project), run_id):
                wait = engine.start(workflow.run, run_id, request.model_dump(mode="json"))
                result = in_background(
                    lambda: finalize.seal(context, RunEnded.model_validate(wait())), DatabaseWatch(context.store).lost
                )
                _account(outcome, result)
                logger.info("run %s: %s %s", run_id, result.status, result.message)
                return result
        finally:
            phase.now = "end"
            log.close()


@dataclasses.dataclass
class _Phase:
    """Where a run is, for what a signal means and says."""

    now: Literal["begin", "work", "end"] = "begin"

    def words(self) -> str:
        """Raises KeyboardInterrupt where there is nothing yet to bring to an end."""
        if self.now == "begin":
            raise KeyboardInterrupt
        return "the run has ended; its hosts are being given back" if self.now == "end" else ""


def _open_log(context: RunContext, request: RunRequest) -> EventLog:
    """Begin the run's folder. Raises BadInput, HostFailed."""
    folder = context.run_directory(request.run_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / REQUEST_FILE, request.model_dump_json())
        log_of_run(folder)
        return EventLog(folder / "log.jsonl")
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError)
        raise (BadInput if in_the_way else HostFailed)(
            f"the run's folder cannot be written: {error.strerror or error}",
            where=str(error.filename or folder),
            next_step="move away what is there" if in_the_way else "free its disk, or make it writable for this user",
        ) from None


def _account(outcome: Outcome, result: RunResult) -> None:
    kept = [f"{trial.experiment}/{trial.variant}" for trial in result.trials if trial.verdict == "KEEP"]
    outcome.evidence = {
        ENDED_RUN: result.run_id,
        "status": result.status,
        "kept": kept,
        "quarantined": sorted(result.quarantined),
    }
    outcome.what = f"{len(result.trials)} trials, kept: {', '.join(kept) or 'nothing'}"
    if result.status != "completed":
        outcome.failed(f"{result.status}: {outcome.what}; {result.message}")
    if result.status == "interrupted":
        outcome.state = INTERRUPTED


def tell_unfinished(context: RunContext, run_id: str) -> None:
    """Say which other runs of the fleet were broken off: this one goes on from what they have left."""
    for other, fleet, started_at in context.store.unfinished():
        if fleet == context.fleet.name and other != run_id:
            text = (
                f"run {other} of this fleet, begun {started_at}, was broken off; going on from the recorded baseline "
                f"(controller resume {other} finishes it, controller end {other} gives it up)"
            )
            context.observer(Notice(level="warning", text=text))


class DatabaseWatch:
    """Asks the database again and again: whoever waits for it in a step would wait for ever.

    Args:
        again: what goes on with the work once the database is back.
    """

    def __init__(self, store: Store, limit: float = DATABASE_SECONDS, *, again: str = "controller resume") -> None:
        self._store = store
        self._again = again
        self._limit = limit
        self._answered = time.monotonic()
        threading.Thread(target=self._ask, name="database", daemon=True).start()

    def _ask(self) -> None:
        while True:
            try:
                self._store.unfinished()
                self._answered = time.monotonic()
            except RatchetError:
                pass
            time.sleep(DATABASE_EVERY)

    def lost(self) -> DatabaseLost | None:
        """The error to end with, once it has not answered for the limit."""
        silent = time.monotonic() - self._answered
        if silent < self._limit:
            return None
        return DatabaseLost(
            f"the database has not answered for {silent:.0f} s; leases put hosts back whose change is not confirmed",
            next_step=f"start it, or free its lock or disk; then: {self._again}",
        )


def in_background(run: Callable[[], T], lost: Callable[[], RatchetError | None]) -> T:
    """Run off the main thread, so that the main one is free for signals; what it raises is raised here.

    `lost`: asked all the while; the error that it gives ends the waiting, and leaves the thread where it is.
    """
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(run())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, name="run", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
        if error := lost():
            raise error
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    result: T = outcome[0]
    return result
