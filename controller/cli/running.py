"""Carry out one run under its lock, its log and the operator's signals; shared by optimize and resume."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from typing import Any

from controller.adapters.files.atomic import write_atomically
from controller.adapters.store import database_url
from controller.cli.progress import EventLog
from controller.cli.run_setup import holding, listening
from controller.model.errors import BadInput
from controller.model.events import Event
from controller.model.project import Project
from controller.model.run import RunResult
from controller.workflow import engine, sealing
from controller.workflow.context import RunContext
from controller.workflow.optimize import Optimize

# The workflow's input, so that `controller resume` can start what was killed before its first step was recorded.
REQUEST_FILE = "request.json"


def carry_out(context: RunContext, request: dict[str, Any]) -> RunResult:
    """Run or continue the workflow of `request` to its end. Raises FleetLocked, and what the workflow raises."""
    run_id, started_at = request["run_id"], request["started_at"]
    with holding(context, run_id=run_id, since=context.now()) as held:
        folder = context.run_directory(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / REQUEST_FILE, json.dumps(request))
        log = EventLog(folder / "log.jsonl")
        shown = context.observer

        def observe(event: Event) -> None:
            log.write(context.now(), event)
            shown(event)

        context = dataclasses.replace(held, observer=observe)
        context.store.record_run(
            run_id=run_id, fleet=context.fleet.name, status="running", started_at=started_at, result="{}"
        )
        workflow = Optimize(context)
        try:
            with listening(context.stop), engine.launched(database_url(context.project), run_id):
                wait = engine.start(workflow.run, run_id, request)
                return _in_background(lambda: sealing.seal(context, wait()))
        finally:
            log.close()


def _in_background(run: Callable[[], RunResult]) -> RunResult:
    """Run off the main thread, so that the main one is free for signals; what it raises is raised here."""
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
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    result: RunResult = outcome[0]
    return result


def read_request(project: Project, run_id: str) -> dict[str, Any]:
    """The recorded input of a run. Raises BadInput when it is gone or damaged."""
    path = project.runs / run_id / REQUEST_FILE
    try:
        request: dict[str, Any] = json.loads(path.read_text())
        return {"run_id": request["run_id"], "started_at": request["started_at"]} | request
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"the run's input cannot be read: {error}",
            where=str(path),
            next_step="put the hosts on their baseline: controller rollback --fleet F",
        ) from None
