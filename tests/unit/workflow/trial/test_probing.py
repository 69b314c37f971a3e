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

from controller.judge.verdict import Judge
from controller.model.events import Notice
from controller.model.fleet import Host
from controller.workflow.trial import agent_plan as agent_plans
from controller.workflow.trial import probing
from controller.workflow.trial.agent_plan import agent_plan
from controller.workflow.trial.probing import Probing, _Agent
from ratchet_agent.plan_parsing import parse_plan
from tests.unit.workflow.fleet.commit_world import World
from tests.unit.workflow.trial.test_go_live import trial


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


@pytest.mark.parametrize("claim", [None, {"run": "r-20261130-2015-ab12", "generation": 7}])
def test_an_agent_s_session_speaks_for_the_claim_of_its_run_not_for_the_name_of_its_evidence(
    claim: dict[str, Any] | None,
) -> None:
    plan = trial({"metric": "p50"}).model_copy(update={"control_ids": {"h1": "c"}, "variant_ids": {"h1": "v"}})
    told = parse_plan(json.dumps(agent_plan(plan, "r-20261130-2015-ab12.live", "h1", 60, claim=claim)).encode())
    assert told.run == "r-20261130-2015-ab12.live"
    assert told.claim == (tuple(claim.values()) if claim else None)


@pytest.mark.parametrize(
    ("design", "pairs", "baseline", "least", "most"),
    [
        # Twice the lease, and three blocks of 2 s with their timeouts and settling.
        ("switchback", 40, "c", 120 + 3 * 4, 120 + 3 * 15),
        ("soak", 12, "c", 120 + 12 * 2, 120 + 12 * 6 + 30),
        ("soak", 2000, "c", 3600, 3600),
        ("switchback", 40, "another", 3600, 3600),
        ("switchback", 40, None, 3600, 3600),
    ],
)
def test_the_lease_is_bound_by_what_the_plan_leaves_live_in_one_go(
    design: str, pairs: int, baseline: str | None, least: int, most: int
) -> None:
    plan = trial({"metric": "p50"}).model_copy(
        update={"design": design, "control_ids": {"h1": "c"}, "variant_ids": {"h1": "v"}}
    )
    timing = plan.timing.model_copy(update={"block_seconds": 2.0, "maximum_pairs": pairs, "confirm_pairs": 0})
    plan = plan.model_copy(update={"timing": timing})
    told = parse_plan(json.dumps(agent_plan(plan, "r-1", "h1", 60, baseline=baseline)).encode())
    assert least <= told.bound_seconds <= most


class Endless(Line):
    """An agent that talks without end, and hears nothing."""

    def send(self, text: str) -> None:
        self.sent.append(json.loads(text).get("command"))

    def close(self) -> None:
        self.sent.append("closed")

    def lines(self, timeout: float) -> Iterator[str]:
        assert timeout > 0
        while not self.told.wait(0.01):
            yield '{"event": "notice", "message": "still here"}'


@pytest.mark.parametrize("asked", [0, 1, 2], ids=["nobody stops it", "Ctrl-C", "Ctrl-C twice"])
def test_an_agent_that_only_talks_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: int) -> None:
    line, world = Endless(), World(tmp_path, monkeypatch)
    monkeypatch.undo()
    context, events = world.context, world.events
    line.open.set()
    monkeypatch.setattr(probing, "connect", line.connect)
    monkeypatch.setattr(agent_plans, "SLACK_SECONDS", 0.2)
    monkeypatch.setattr(probing, "HUNG_UP_SECONDS", 0.3)
    host = context.fleet.hosts[0].name
    update = {"hosts": [host], "control_ids": {host: "c"}, "variant_ids": {host: "v"}}
    plan = trial({"metric": "p50"}).model_copy(update=update)
    timing = plan.timing.model_copy(update={"block_seconds": 0.2, "burn_in_seconds": 0.0})
    for _ in range(asked):
        context.stop.request()
    observed = Probing(plan.model_copy(update={"timing": timing}), "r-1", context, Judge(plan)).observe()
    line.told.set()
    assert "given up" in observed.failures[host].what
    assert observed.seconds < 5
    assert "closed" in line.sent
    assert ("stop" if asked else "conclude") in line.sent
    notices = [event for event in events if isinstance(event, Notice) and event.text == "still here"]
    assert len(notices) == probing.NOTICES_TOLD
