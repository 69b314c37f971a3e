"""The controller's end of an agent's line: no command is lost, however early it comes."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.model.fleet import Host
from controller.workflow import probing
from controller.workflow.probing import _Agent


class Line:
    """A login that takes until `open` is set, and an agent that ends when it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.told = threading.Event()
        self.sent: list[Any] = []

    @contextmanager
    def connect(self, *_: Any, **__: Any) -> Iterator[Line]:
        assert self.open.wait(5)
        yield self

    @contextmanager
    def stream(self, _command: str) -> Iterator[Line]:
        yield self

    def send(self, text: str) -> None:
        self.sent.append(json.loads(text))
        if self.sent[-1].get("command"):
            self.told.set()

    def lines(self, timeout: float) -> Iterator[str]:
        assert self.told.wait(timeout)
        yield '{"event": "end"}'


def test_a_command_that_comes_before_the_line_is_there_follows_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    line, events = Line(), queue.Queue[tuple[str, Any]]()
    monkeypatch.setattr(probing, "connect", line.connect)
    agent = _Agent(Host(name="one", address="192.0.2.1", key_file=Path("k"), known_hosts=Path("h")), {}, 5, events)
    agent.start()
    agent.send("stop")
    line.open.set()
    assert events.get(timeout=5) == ("one", {"event": "end"})
    assert events.get(timeout=5) == ("one", None)
    assert line.sent == [{}, {"command": "stop"}]
