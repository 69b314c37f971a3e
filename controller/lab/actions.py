"""Actions: what the API has promised to do. They are kept with the lab's state and settled by worker threads.

Work on one server is done in the order it was asked for. Every job can be repeated, so an API that was killed simply
takes up the actions that it left running.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from controller.lab.faults import Faults
from controller.lab.replies import timestamp
from controller.lab.state import Document, State
from controller.model.errors import RatchetError

log = logging.getLogger("ratchet.lab")
Job = Callable[[Document], None]


def public(action: Document) -> Document:
    """The part of an action that clients see."""
    return {key: value for key, value in action.items() if key != "job"}


class Actions:
    """Creates, runs and lists actions. `parallel` bounds how many servers are worked on at once."""

    def __init__(self, state: State, faults: Faults, *, parallel: int = 4) -> None:
        self._state = state
        self._faults = faults
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[int, deque[int]] = {}
        self._mutex = threading.Lock()
        self._slots = threading.Semaphore(parallel)
        self._stopped = threading.Event()

    def register(self, command: str, job: Job) -> None:
        self._jobs[command] = job

    def create(self, command: str, resources: list[tuple[str, int]], job: dict[str, Any] | None = None) -> Document:
        """Record a running action; `start` begins it after the caller's transaction."""
        action: Document = {
            "id": self._state.next_id(),
            "command": command,
            "status": "running",
            "progress": 0,
            "started": timestamp(),
            "finished": None,
            "resources": [{"id": identity, "type": kind} for kind, identity in resources],
            "error": None,
            "job": job or {},
        }
        self._state.put("action", action)
        return action

    def running_for(self, kind: str, identity: int) -> list[Document]:
        resource = {"id": identity, "type": kind}
        return [one for one in self._state.all("action") if one["status"] == "running" and resource in one["resources"]]

    def progress(self, action: Document, percent: int) -> None:
        self._state.change("action", action["id"], progress=percent)

    def start(self, *actions: Document) -> None:
        """Queue actions behind those of the same resource that were asked for earlier."""
        for action in actions:
            queue_id = action["resources"][0]["id"]
            with self._mutex:
                idle = queue_id not in self._waiting
                self._waiting.setdefault(queue_id, deque()).append(action["id"])
            if idle:
                threading.Thread(target=self._drain, args=(queue_id,), name=f"resource-{queue_id}", daemon=True).start()

    def take_up(self) -> None:
        """Go on with what an earlier process left running."""
        self.start(*(action for action in self._state.all("action") if action["status"] == "running"))

    def stop(self) -> None:
        self._stopped.set()

    def _drain(self, queue_id: int) -> None:
        while not self._stopped.is_set():
            with self._mutex:
                queue = self._waiting[queue_id]
                if not queue:
                    del self._waiting[queue_id]
                    return
                action = self._state.get("action", queue[0])
            if action is not None:
                self._run(action)
            with self._mutex:
                queue.popleft()

    def _run(self, action: Document) -> None:
        delay, failure = self._faults.action(action["command"])
        if delay and self._stopped.wait(delay):
            return
        if failure is None:
            try:
                with self._slots:
                    if self._stopped.is_set():
                        return
                    self._jobs[action["command"]](action)
            except RatchetError as error:
                failure = {"code": "action_failed", "message": error.what}
            except Exception as error:
                log.exception("action %s (%s)", action["id"], action["command"])
                failure = {"code": "action_failed", "message": f"{type(error).__name__}: {error}"}
        outcome = "success" if failure is None else "error"
        log.info("action %s %s: %s %s", action["id"], action["command"], outcome, failure or "")
        self._state.change("action", action["id"], status=outcome, progress=100, finished=timestamp(), error=failure)
