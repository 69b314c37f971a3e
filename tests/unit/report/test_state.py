"""The document that a host's dashboard is drawn from."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from controller.model.run import RunResult
from controller.report.state import dashboard_state


def state_of(*runs: RunResult, parameters: dict[str, object] | None = None) -> str:
    return dashboard_state(
        fleet="lab",
        host="lab-1",
        configuration="fedcba9876543210",
        parameters_kept=parameters or {},
        runs=runs,
        generated_at="2026-11-23T20:17:00Z",
    )


def test_the_state_tells_the_configuration_and_each_verdict_in_words(result: RunResult) -> None:
    state = json.loads(state_of(result, parameters={"nginx_gzip_comp_level": 4}))
    assert state["configuration"] == "fedcba9876543210"
    assert state["parameters_kept"] == {"nginx_gzip_comp_level": 4}
    (run,) = state["runs"]
    assert (run["before"], run["after"]) == ("0123456789abcdef", "fedcba9876543210")
    assert [trial["verdict"] for trial in run["trials"]] == ["KEEP", "REVERT", "REVERT"]
    assert run["trials"][0]["effect"]["estimate"] == 0.382
    assert run["trials"][0]["effect_confirmed"] is True
    assert run["trials"][2]["effect"] is None
    assert "nginx refused" in run["trials"][2]["reason_words"]


def test_the_same_facts_give_the_same_text(result: RunResult) -> None:
    assert state_of(result) == state_of(result)


@given(st.text(alphabet='{}%#\\"a\n', max_size=20))
def test_no_text_inside_it_can_be_a_template_and_none_is_changed(text: str) -> None:
    rendered = state_of(parameters={"nginx_log": text, text: [text]})
    assert not any(opening in rendered for opening in ("{{", "{%", "{#"))
    assert json.loads(rendered)["parameters_kept"]["nginx_log"] == text
    assert json.loads(rendered)["parameters_kept"][text] == [text]
