"""Failures on order, for tests: the cloud's errors, its slowness and its empty stock.

A fault is a document kept with the lab's state. `times` counts the matches left (null: until it is removed).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.lab.replies import STATUS, ApiError
from controller.lab.state import Document, State


class Fault(BaseModel):
    """What to do wrong.

    error: matching requests are answered with `code`, and not carried out. lost_answer: they are carried out, and
    answered with `code` all the same. action_error: the action `command` ends with `code`.
    slow_action: the action `command` takes `seconds` longer. unavailable: the type is out of stock (at the location).
    hang: matching requests are answered after `seconds`.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["error", "lost_answer", "action_error", "slow_action", "unavailable", "hang"]
    times: int | None = Field(default=None, ge=1)
    method: str = Field(default="*", pattern=r"^(\*|GET|POST|PUT|DELETE)$")
    path: str = Field(default=".*", description="regular expression that the path after /v1 matches in full")
    code: str = "server_error"
    message: str = "ordered by a test"
    command: str = Field(default=".*", description="regular expression of action commands")
    seconds: float = Field(default=0.0, ge=0, le=600)
    server_type: str | None = None
    location: str | None = None


class Faults:
    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, fault: Fault) -> Document:
        for pattern in (fault.path, fault.command):
            re.compile(pattern)
        with self._state.transaction():
            document = {"id": self._state.next_id(), **fault.model_dump()}
            self._state.put("fault", document)
        return document

    def all(self) -> list[Document]:
        return self._state.all("fault")

    def clear(self) -> None:
        with self._state.transaction():
            for document in self.all():
                self._state.delete("fault", document["id"])

    def _take(self, kind: str, matches: Callable[[Document], bool]) -> Document | None:
        with self._state.transaction():
            for document in self._state.all("fault"):
                if document["kind"] == kind and matches(document):
                    if document["times"] is not None:
                        document["times"] -= 1
                        if document["times"]:
                            self._state.put("fault", document)
                        else:
                            self._state.delete("fault", document["id"])
                    return document
        return None

    def request(self, method: str, path: str) -> tuple[float, ApiError | None]:
        """Seconds to wait before answering this request, and the error to answer with."""

        def matches(fault: Document) -> bool:
            return fault["method"] in {"*", method} and re.fullmatch(fault["path"], path) is not None

        hang, error = self._take("hang", matches), self._take("error", matches)
        return (hang["seconds"] if hang else 0.0), _failure(error)

    def answer(self, method: str, path: str) -> ApiError | None:
        """The error that takes the place of the answer to this request, which has been carried out."""

        def matches(fault: Document) -> bool:
            return fault["method"] in {"*", method} and re.fullmatch(fault["path"], path) is not None

        return _failure(self._take("lost_answer", matches))

    def action(self, command: str) -> tuple[float, dict[str, str] | None]:
        """Extra seconds for this action, and the error it is to end with."""

        def matches(fault: Document) -> bool:
            return re.fullmatch(fault["command"], command) is not None

        slow, error = self._take("slow_action", matches), self._take("action_error", matches)
        failure: dict[str, Any] | None = {"code": error["code"], "message": error["message"]} if error else None
        return (slow["seconds"] if slow else 0.0), failure

    def out_of_stock(self, server_type: str, location: str, *, ordering: bool) -> bool:
        """Whether the type is out of stock there; only an order uses up a fault's `times`."""

        def matches(fault: Document) -> bool:
            return fault["server_type"] in {None, server_type} and fault["location"] in {None, location}

        if ordering:
            return self._take("unavailable", matches) is not None
        return any(fault["kind"] == "unavailable" and matches(fault) for fault in self.all())


def _failure(fault: Document | None) -> ApiError | None:
    return None if fault is None else ApiError(fault["code"], fault["message"], status=STATUS.get(fault["code"], 500))
