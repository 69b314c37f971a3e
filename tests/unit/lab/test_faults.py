from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from controller.lab.faults import Fault, Faults
from controller.lab.state import State


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(State(tmp_path))


def test_an_error_is_given_as_often_as_ordered(faults: Faults) -> None:
    faults.add(Fault(kind="error", code="conflict", times=2, method="POST", path="/servers"))
    assert faults.request("GET", "/servers") == (0.0, None)
    assert faults.request("POST", "/servers/1/actions/reboot") == (0.0, None)
    for _ in range(2):
        _, error = faults.request("POST", "/servers")
        assert error is not None
        assert (error.code, error.status) == ("conflict", 409)
    assert faults.request("POST", "/servers") == (0.0, None)


def test_an_answer_is_lost_after_the_request_was_let_through(faults: Faults) -> None:
    faults.add(Fault(kind="lost_answer", code="timeout", times=1, method="POST", path="/servers"))
    assert faults.request("POST", "/servers") == (0.0, None)
    assert faults.answer("GET", "/servers") is None
    lost = faults.answer("POST", "/servers")
    assert lost is not None and lost.status == 504
    assert faults.answer("POST", "/servers") is None


def test_an_action_can_be_slow_and_fail(faults: Faults) -> None:
    faults.add(Fault(kind="slow_action", command="create_server", seconds=3, times=1))
    faults.add(Fault(kind="action_error", command="create_server", code="placement_error", times=1))
    assert faults.action("start_server") == (0.0, None)
    seconds, error = faults.action("create_server")
    assert seconds == 3
    assert error is not None and error["code"] == "placement_error"
    assert faults.action("create_server") == (0.0, None)


def test_only_an_order_uses_up_a_stock_out(faults: Faults) -> None:
    faults.add(Fault(kind="unavailable", server_type="cx23", location="fsn1", times=1))
    assert faults.out_of_stock("cx23", "fsn1", ordering=False)
    assert not faults.out_of_stock("cx23", "nbg1", ordering=True)
    assert faults.out_of_stock("cx23", "fsn1", ordering=True)
    assert not faults.out_of_stock("cx23", "fsn1", ordering=False)


def test_faults_are_kept_and_cleared(faults: Faults) -> None:
    faults.add(Fault(kind="error"))
    assert len(faults.all()) == 1
    faults.clear()
    assert faults.all() == []


@pytest.mark.parametrize("fields", [{"kind": "magic"}, {"kind": "error", "times": 0}, {"kind": "error", "typo": 1}])
def test_a_malformed_fault_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(fields)
