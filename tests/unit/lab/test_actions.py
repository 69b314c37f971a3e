from __future__ import annotations

import time
from pathlib import Path

from controller.lab.actions import Actions
from controller.lab.faults import Fault, Faults
from controller.lab.state import Document, State
from controller.model.errors import HostFailed


def settled(state: State, action: Document) -> Document:
    for _ in range(500):
        found = state.get("action", action["id"])
        assert found is not None
        if found["status"] != "running":
            return found
        time.sleep(0.01)
    raise AssertionError("the action is still running")


def test_actions_of_one_server_run_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    state = State(tmp_path)
    actions = Actions(state, Faults(state))
    done: list[str] = []
    for command in ("create_server", "start_server"):
        actions.register(command, lambda action: done.append(action["command"]))
    asked = [actions.create(command, [("server", 1)]) for command in ("create_server", "start_server")]
    actions.start(*asked)
    results = [settled(state, action) for action in asked]
    assert done == ["create_server", "start_server"]
    assert all((one["status"], one["progress"], one["error"]) == ("success", 100, None) for one in results)
    assert all(one["finished"] for one in results)


def test_a_job_that_fails_ends_its_action_with_the_reason(tmp_path: Path) -> None:
    state = State(tmp_path)
    actions = Actions(state, Faults(state))

    def fail(_: Document) -> None:
        raise HostFailed("podman is gone")

    actions.register("start_server", fail)
    action = actions.create("start_server", [("server", 1)])
    actions.start(action)
    result = settled(state, action)
    assert result["status"] == "error"
    assert result["error"] == {"code": "action_failed", "message": "podman is gone"}


def test_an_action_that_a_killed_api_left_running_is_taken_up(tmp_path: Path) -> None:
    left = Actions(State(tmp_path), Faults(State(tmp_path))).create("start_server", [("server", 1)])
    state = State(tmp_path)
    actions = Actions(state, Faults(state))
    done: list[int] = []
    actions.register("start_server", lambda action: done.append(action["id"]))
    assert [one["id"] for one in actions.running_for("server", 1)] == [left["id"]]
    actions.take_up()
    assert settled(state, left)["status"] == "success"
    assert done == [left["id"]]


def test_an_ordered_failure_ends_the_action_without_its_job(tmp_path: Path) -> None:
    state = State(tmp_path)
    faults = Faults(state)
    actions = Actions(state, faults)
    done: list[int] = []
    actions.register("start_server", lambda action: done.append(action["id"]))
    faults.add(Fault(kind="action_error", command="start_server", code="placement_error", times=1))
    action = actions.create("start_server", [("server", 1)])
    actions.start(action)
    assert settled(state, action)["error"] == {"code": "placement_error", "message": "ordered by a test"}
    assert done == []
