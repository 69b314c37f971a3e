from __future__ import annotations

from pathlib import Path

import pytest

from controller.lab.state import State, sole_server
from controller.model.errors import HostFailed


def test_documents_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    first = State(tmp_path)
    first.put("server", {"id": first.next_id(), "name": "a"})
    # Not closed: as if it had been killed.
    second = State(tmp_path)
    assert second.all("server") == [{"id": 1, "name": "a"}]
    assert second.next_id() == 2


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    state = State(tmp_path)
    with pytest.raises(RuntimeError), state.transaction():
        state.put("server", {"id": 1})
        with state.transaction():
            state.put("server", {"id": 2})
        raise RuntimeError
    assert state.all("server") == []
    assert state.next_id() == 1


def test_changing_a_document_that_is_gone_does_nothing(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.change("server", 7, name="x") is None
    assert state.all("server") == []


def test_a_lab_is_served_by_one_process_only(tmp_path: Path) -> None:
    with (
        sole_server("lab", tmp_path),
        pytest.raises(HostFailed, match="already served"),
        sole_server("lab", tmp_path),
    ):
        pass
    with sole_server("lab", tmp_path):
        pass
