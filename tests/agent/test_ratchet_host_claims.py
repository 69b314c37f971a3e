"""The claim of a controller's run on a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ratchet_host import paths, processes
from ratchet_host.claim import Claim, Fence, command_claim, command_release, extend_claim
from ratchet_host.command_line import BadUsage, parse_arguments
from ratchet_host.errors import Refused
from tests.agent.test_ratchet_host_input import JSON


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /run/ratchet."""
    monkeypatch.setattr(paths, "RUN", tmp_path)
    return tmp_path


def claim(run: str, holder: str = "ann@laptop/1", seconds: int = 60) -> dict[str, Any]:
    document: dict[str, Any] = command_claim(holder, run, seconds)
    return document


@pytest.mark.usefixtures("run_folder")
def test_a_claim_keeps_others_away_and_says_who_since_when_and_how_long() -> None:
    assert claim("r-1")["changed"]
    refused = claim("r-2", "bob@desk/2")
    assert not refused["ok"]
    assert refused["error"].startswith("claimed by run r-1 of ann@laptop/1 since 2")
    assert 55 < refused["claim"]["seconds_left"] <= 60
    assert Claim.read().run == "r-1"


@pytest.mark.usefixtures("run_folder")
def test_the_same_run_renews_its_claim_from_anywhere_and_keeps_its_beginning() -> None:
    first = claim("r-1", seconds=30)["claim"]
    again = claim("r-1", "ann@desk/9", seconds=90)
    assert again["ok"] and not again["changed"]
    assert again["claim"]["since"] == first["since"] and again["claim"]["seconds_left"] > 80


@pytest.mark.usefixtures("run_folder")
def test_a_holder_replaces_the_claim_of_its_own_earlier_run() -> None:
    claim("r-1")
    assert claim("r-2")["replaced"]["run"] == "r-1"


@pytest.mark.usefixtures("run_folder")
def test_a_claim_that_has_run_out_keeps_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    claim("r-1", seconds=60)
    later = processes.boot_clock() + 61
    monkeypatch.setattr(processes, "boot_clock", lambda: later)
    assert Claim.read() is None
    assert claim("r-2", "bob@desk/2")["replaced"] is None


@pytest.mark.usefixtures("run_folder")
def test_a_run_that_was_taken_over_is_refused_until_it_must_have_learnt_it(monkeypatch: pytest.MonkeyPatch) -> None:
    claim("r-1")
    assert not command_claim("bob@desk/2", "r-2", 60, "r-9")["ok"]
    assert command_claim("bob@desk/2", "r-2", 60, "r-1")["replaced"]["run"] == "r-1"
    command_release("r-2")
    assert claim("r-1")["error"] == "run r-1 was taken over by run r-2, of bob@desk/2, and is at an end"
    assert claim("r-3")["ok"]
    command_release("r-3")
    later = processes.boot_clock() + 61
    monkeypatch.setattr(processes, "boot_clock", lambda: later)
    assert claim("r-1")["ok"]


@pytest.mark.usefixtures("run_folder")
def test_only_its_own_run_releases_a_claim() -> None:
    claim("r-1")
    kept = command_release("r-2")
    assert kept["ok"] and not kept["changed"] and kept["claim"]["run"] == "r-1"
    assert command_release("r-1") == {"ok": True, "changed": True, "claim": None}
    assert command_release("r-1")["changed"] is False


@pytest.mark.usefixtures("run_folder")
def test_a_session_that_is_renewed_extends_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    claim("r-1", seconds=60)
    later = processes.boot_clock() + 30
    monkeypatch.setattr(processes, "boot_clock", lambda: later)
    extend_claim("r-2")
    assert Claim.read().left == pytest.approx(30, abs=1)
    extend_claim("r-1")
    assert Claim.read().left == pytest.approx(60, abs=1)


@pytest.mark.usefixtures("run_folder")
def test_heartbeats_extend_a_claim_for_an_hour_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    claim("r-1", seconds=3000)
    began = processes.boot_clock()
    for minutes in (20, 40):
        monkeypatch.setattr(processes, "boot_clock", lambda now=began + 60 * minutes: now)
        extend_claim("r-1")
    assert Claim.read().until == pytest.approx(began + 3600, abs=2)


def refusal(run: str | None, generation: int | None = None) -> str:
    try:
        Fence(run, generation).check()
    except Refused as refused:
        return str(refused)
    return ""


@pytest.mark.usefixtures("run_folder")
def test_a_change_that_comes_late_is_refused_and_says_whose_the_host_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no claim on this host any more;" in refusal("r-1")
    claim("r-1")
    assert refusal("r-1") == "" and refusal(None) == ""
    command_claim("bob@desk/2", "r-2", 60, "r-1")
    assert "run r-1 was taken over by run r-2, of bob@desk/2, and is at an end" in refusal("r-1")
    assert refusal("r-2") == "" and refusal(None) == ""
    later = processes.boot_clock() + 61
    monkeypatch.setattr(processes, "boot_clock", lambda: later)
    assert "has no claim on this host any more" in refusal("r-1")
    assert "has no claim on this host any more" in refusal("r-2")


@pytest.mark.usefixtures("run_folder")
def test_of_two_processes_of_one_run_the_later_has_the_host() -> None:
    command_claim("ann@laptop/1", "r-1", 60, generation=1)
    assert refusal("r-1", 1) == ""
    assert command_claim("ann@desk/7", "r-1", 60, generation=2)["ok"]
    assert "goes on in another process since (generation 2, this is 1)" in refusal("r-1", 1)
    assert not command_claim("ann@laptop/1", "r-1", 60, generation=1)["ok"]
    assert refusal("r-1", 2) == ""


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b'{"run": "r", "holder": "h", "since": "s", "seconds": "x", "until": 1}')
@example(b'{"run": "r", "holder": "h", "since": "s", "seconds": Infinity, "until": NaN}')
@pytest.mark.usefixtures("run_folder")
def test_a_damaged_claim_is_no_claim(content: bytes) -> None:
    Claim.path().write_bytes(content)
    assert Claim.read() is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["claim", "--holder", "ann@laptop", "--run", "r-1"],
        ["claim", "--holder", "ann@laptop", "--run", "../x", "--seconds", "60"],
        ["claim", "--holder", "two\nlines", "--run", "r-1", "--seconds", "60"],
        ["claim", "--holder", "ann@laptop", "--run", "r-1", "--seconds", "4"],
        ["release", "--run", ""],
        ["release"],
    ],
)
def test_a_claim_takes_only_plain_names_and_seconds(arguments: list[str]) -> None:
    with pytest.raises(BadUsage):
        parse_arguments(arguments)
