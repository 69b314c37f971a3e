"""An experiment that somebody else wrote: what it holds is taken as data or refused with its file and line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.files.experiments import load_experiments
from controller.adapters.files.parameters import check_parameters
from controller.cli.main import main
from controller.model.blocks import LIMITS
from controller.model.errors import BadInput
from controller.model.experiment import Experiment
from controller.model.project import Project
from ratchet_agent.plan_parsing import parse_plan
from tests.unit.experiments.conftest import ROOT
from tests.unit.roles.test_hostile_parameters import HOSTILE_TEXTS, anything, text
from tests.unit.roles.test_nginx_parameters import OPTIONS, nginx_value

GOOD = ROOT / "tests/fixtures/experiment/good/everything.json"
CONTROLS = ["\x1b[2J\x1b]0;pwned\x07", "\u202ereversed", "a\x00b", "\x9b31m", "\u2066x", "\r\noverwritten", "a\u2028b"]
# Text in which a header, a request or a path could end early.
wire_text = st.sampled_from([*HOSTILE_TEXTS, *CONTROLS, "x\r\nInjected: 1", "x\r\n\r\nGET /admin HTTP/1.1"]) | text


@contextlib.contextmanager
def written(document: dict[str, Any]) -> Iterator[Project]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "ansible.cfg").write_text("")
        (root / "inventory").mkdir()
        (root / "roles").symlink_to(ROOT / "roles")
        (root / "experiments" / "everything").mkdir(parents=True)
        (root / "experiments" / "everything" / "meta.json").write_text(json.dumps(document, indent=1))
        yield Project(root)


def read(project: Project) -> Experiment:
    """Raises BadInput, which names the file."""
    try:
        (experiment,) = load_experiments(project, ["everything"])
        check_parameters(project, experiment)
    except BadInput as error:
        assert str(project.experiments / "everything" / "meta.json") in error.where
        assert error.next_step
        raise
    return experiment


def document(**changes: Any) -> dict[str, Any]:
    return dict(json.loads(GOOD.read_text()) | changes)


@settings(max_examples=150, deadline=None, database=None)
@given(
    st.sampled_from(sorted(OPTIONS)) | st.text(max_size=10), anything, st.sampled_from(["variant", "requires", "range"])
)
def test_a_parameter_is_what_the_role_allows_too_or_refused_with_its_line(name: str, value: Any, place: str) -> None:
    changed = document(allow_service_reduction=True)
    if place == "variant":
        changed["variants"] = [{"name": "only", "parameters": {name: value}}]
    elif place == "requires":
        changed["requires"] = {name: value}
    else:
        changed |= {"variants": [], "ranges": {name: {"kind": "choice", "values": [value, "auto"]}}}
    with written(changed) as project:
        try:
            experiment = read(project)
        except BadInput:
            return
    sets = [experiment.requires, *(variant.parameters for variant in experiment.variants)]
    for given_name, taken in [pair for each in sets for pair in each.items()]:
        nginx_value(taken, given_name)


@settings(max_examples=150, deadline=None, database=None)
@given(
    st.sampled_from(["path", "body", "header", "header name", "host", "method"]),
    wire_text | st.builds(lambda more: f"/x{more}", wire_text),
)
def test_a_workload_asks_exactly_what_it_says_or_is_refused(field: str, value: str) -> None:
    request: dict[str, Any] = {"path": "/x", "method": "POST", "headers": {"X-Probe": "1"}}
    workload: dict[str, Any] = {"rate": 5, "requests": [request]}
    if field == "header":
        request["headers"] = {"X-Probe": value}
    elif field == "header name":
        request["headers"] = {value: "1"}
    elif field == "host":
        workload["host"] = value
    else:
        request[field] = value
    with written(document(workload=workload)) as project:
        try:
            experiment = read(project)
        except BadInput:
            return
    plan = {
        "format": 1, "run": "r-1", "trial": 1, "host": "lab-1", "design": "duet",
        "workload": experiment.workload.model_dump(mode="json"), "arms": {"control": "c", "variant": "v"},
        "block_seconds": 1, "burn_in_seconds": 0.1, "lease_seconds": 60, "pairs": [["control", "variant"]], "seed": 7,
        "limits": LIMITS.model_dump(),
    }  # fmt: skip
    (sent,) = parse_plan(json.dumps(plan).encode()).requests
    head, _, body = sent.wire.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    planned = experiment.workload.requests[0]
    assert first == f"{planned.method} {planned.path} HTTP/1.1".encode()
    assert body == planned.body.encode()
    names = [line.partition(b": ")[0].decode() for line in headers]
    expected = {"host", "user-agent", "accept", "content-length"} | {name.lower() for name in planned.headers}
    assert sorted(name.lower() for name in names) == sorted(expected)
    assert not set(b"\r\n\0") & set(b"".join(headers))


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("field", ["question", "why", "source", "note", "variant's why"])
def test_words_that_would_steer_a_terminal_are_refused(field: str, control: str) -> None:
    changed = document()
    words = f"A question as long as it must be {control}"
    if field in {"question", "why"}:
        changed[field] = words
    elif field == "source":
        changed["sources"] = [words]
    elif field == "note":
        changed["risk"] = {"level": "low", "note": words}
    else:
        changed["variants"][0]["why"] = words
    with written(changed) as project, pytest.raises(BadInput) as caught:
        read(project)
    assert str(caught.value).replace("\n", "").isprintable()


@settings(max_examples=60, deadline=None, database=None)
@given(st.sampled_from(["question", "name", "variant", "parameter", "field"]), wire_text)
def test_the_command_ends_with_2_one_message_and_no_control_character(field: str, value: str) -> None:
    changed = document()
    if field == "variant":
        changed["variants"][0]["name"] = value
    elif field == "parameter":
        changed["variants"][0]["parameters"] = {value: 1}
    elif field == "field":
        changed[value] = value
    else:
        changed[field] = value
    out, err = io.StringIO(), io.StringIO()
    with written(changed) as project, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--project", str(project.root), "experiments", "check"])
    said = out.getvalue() + err.getvalue()
    assert code in {0, 2}
    assert "Traceback" not in said
    assert said.replace("\n", "").replace("\t", "").isprintable(), ascii(said)
    assert (code == 2) == ("BAD" in said)
    if code == 2:
        assert f"{os.sep}meta.json" in said and "; " in said
