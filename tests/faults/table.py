"""The table of docs/safety.md: fault, how often it was injected, how often all was well, the longest time back."""

from __future__ import annotations

from pathlib import Path

from tests.faults.fault import AFTERWARDS, Outcome

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def rows(outcomes: list[Outcome]) -> list[str]:
    """Lines of a Markdown table, in the order in which the faults first came."""
    lines = ["| fault | injected | passed | longest time back, s |", "|---|---|---|---|"]
    injected = [outcome for outcome in outcomes if outcome.fault != AFTERWARDS]
    for name in [*dict.fromkeys(outcome.fault for outcome in injected), AFTERWARDS]:
        same = [outcome for outcome in outcomes if outcome.fault == name]
        times = [outcome.seconds for outcome in same if outcome.seconds is not None]
        longest = f"{max(times):.1f}" if times else "" if name == AFTERWARDS else "not left"
        lines.append(f"| {name} | {len(same)} | {sum(outcome.passed for outcome in same)} | {longest} |")
    lines.append(f"| all faults | {len(injected)} | {sum(outcome.passed for outcome in injected)} | |")
    return lines


def write(document: Path, outcomes: list[Outcome]) -> None:
    """Put the table between the two marks. Raises ValueError when they are not there."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document}: no {BEGIN} and {END}")
    document.write_text("\n".join([before + BEGIN, *rows(outcomes), END + after]))
