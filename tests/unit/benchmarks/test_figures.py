from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.figures import Figure, emit, parse_arguments

FIGURES = [
    Figure(
        name="push", unit="ratio", value=1.2, low=1.1, high=1.25, target="<= 1.3", reached=True, peers={"ping": 1.0}
    ),
    Figure(name="told only", unit="s", value=4.0, peers={"silent": None}),
]


def test_the_json_document_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    emit("push", True, FIGURES, "json")
    document = json.loads(capsys.readouterr().out)
    assert document["benchmark"] == "push"
    assert document["quick"] is True
    assert document["figures"][0] == {
        "name": "push",
        "unit": "ratio",
        "value": 1.2,
        "spread": [1.1, 1.25],
        "target": "<= 1.3",
        "reached": True,
        "peers": {"ping": 1.0},
    }
    assert document["figures"][1]["spread"] == [None, None]
    assert document["figures"][1]["peers"] == {"silent": None}


def test_the_table_tells_value_target_and_peers(capsys: pytest.CaptureFixture[str]) -> None:
    emit("push", False, FIGURES)
    text = capsys.readouterr().out
    for word in ("push", "1.1 .. 1.25", "<= 1.3", "yes", "ping 1", "silent n/a"):
        assert word in text


def test_a_figure_that_is_no_number_is_refused_rather_than_written_as_broken_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        emit("push", False, [Figure(name="nothing", unit="s", value=float("nan"))], "json")


def test_the_options_are_the_same_for_all_benchmarks() -> None:
    assert vars(parse_arguments("x", ["--quick", "--output", "json"])) == {"quick": True, "output": "json"}
    assert vars(parse_arguments("x", [])) == {"quick": False, "output": "table"}
    further = parse_arguments("x", ["--seeds", "3"], further={"seeds": int, "record": Path})
    assert (further.seeds, further.record) == (3, None)
    assert parse_arguments("x", ["--record", "a"], further={"record": Path}).record == Path("a")
