"""The tables on the terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console, RenderableType

from controller.model.run import RunResult
from controller.report.text import status_table, verdict_table


def printed(renderable: RenderableType, width: int) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(renderable)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    return str(text)


@pytest.mark.parametrize("width", [80, 120])
def test_every_verdict_is_readable_with_its_effect_and_reason(result: RunResult, width: int) -> None:
    text = printed(verdict_table(result), width)
    for words in ("KEEP", "REVERT", "gzip-level", "level-4", "p50 38.2 % lower", "(35.1 to 41.0 %)", "2141 of 100"):
        assert words in text
    joined = " ".join(text.split())
    assert "proven better" in joined or "proven" in joined
    assert "…" not in text


def test_a_run_without_trials_says_so(result: RunResult) -> None:
    assert "no trial" in printed(verdict_table(result.model_copy(update={"trials": []})), 80)


def host(**fields: object) -> dict[str, object]:
    return {
        "host": "lab-1",
        "address": "10.88.0.11",
        "healthy": True,
        "problem": "",
        "live": "0123456789abcdef",
        "confirmed": "0123456789abcdef",
        "recorded": "0123456789abcdef",
        "nginx": "1.22.1",
        "lease": None,
    } | fields


@pytest.mark.parametrize("width", [80, 120])
def test_the_status_of_healthy_hosts_is_one_line_each(width: int) -> None:
    document = {"fleet": "lab", "hosts": [host(), host(host="lab-2")], "unfinished_runs": [], "open_commits": []}
    text = printed(status_table(document), width)
    assert "fleet lab: 2 of 2 hosts healthy" in text
    assert len(text.splitlines()) == 4


def test_what_needs_attention_is_told_with_what_to_type() -> None:
    document = {
        "fleet": "lab",
        "hosts": [
            host(healthy=False, problem="cannot be reached [red]x[/red]", live="", confirmed="", nginx=""),
            host(host="lab-2", recorded="ffff", lease={"until": 1}, inventory="eeee"),
        ],
        "unfinished_runs": ["r-1"],
        "open_commits": [
            {"why": "the commit of gzip/l4", "run": "r-2", "forward": True, "hosts": ["lab-2"]},
            {"why": "the commit of gzip/l5", "run": "r-3", "forward": False, "hosts": ["lab-1", "lab-2"]},
        ],
    }
    text = printed(status_table(document), 100)
    assert "lab-1: cannot be reached [red]x[/red]" in text
    assert "lab-2: its baseline was confirmed outside a run" in text
    assert "lab-2: a trial is under way" in text
    assert "controller resume r-1" in text
    assert "lab-2: the inventory renders to eeee, which is not deployed" in text
    flat = " ".join(text.split())
    assert "the commit of gzip/l4 (r-2) was broken off; not done yet: lab-2. controller rollback --fleet lab" in flat
    assert "the commit of gzip/l5 (r-3) was broken off; nothing was confirmed, and it goes back" in flat
