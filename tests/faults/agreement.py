"""After a commit or a rollback that was broken: record, hosts and settings say the same, and so does what was told."""

from __future__ import annotations

import json
from typing import Any

from tests.faults.bay import Bay
from tests.faults.fault import INTERRUPTED, KILLED
from tests.faults.live_run import LiveRun

# The host could not be reached, or nobody was left to finish: the next command does.
LEFT_OPEN = {5, KILLED, None}
FINISH_SECONDS = 400


def disagreements(bay: Bay, run: LiveRun) -> list[str]:
    """What is wrong once the fault is over: at once where the command came to its end, else after the next one."""
    found: list[str] = []
    # What could not be written down is left to a resumption, and that is said.
    broken_off = "controller resume" in run.said and bool(bay.unfinished())
    if run.process.returncode not in LEFT_OPEN and not broken_off:
        found += [f"when it had ended: {what}" for what in [*_differences(bay), *_otherwise_than_told(bay, run)]]
    else:
        found += _finished_by_the_next_command(bay)
    return found


def _finished_by_the_next_command(bay: Bay) -> list[str]:
    left = bay.unfinished()
    command = ["resume", left[0]] if left else ["rollback", "--fleet", bay.name]
    done = bay.controller(*command, timeout=FINISH_SECONDS)
    found = [f"after `controller {' '.join(command)}`: {what}" for what in _differences(bay)]
    if done.returncode:
        found.append(f"`controller {' '.join(command)}` ended with {done.returncode}: {done.stderr[-600:]}")
    return found


def _differences(bay: Bay) -> list[str]:
    document = _status(bay)
    found = []
    for row in document["hosts"]:
        ids = {name: row[name] for name in ("live", "confirmed", "recorded", "inventory")}
        if row["claim"] and not ids["inventory"]:
            del ids["inventory"]  # of a host that was cut off from the run's end: its claim is not over
        if len(set(ids.values())) != 1:
            found.append(f"{row['host']} does not agree: {ids}")
        if not row["healthy"]:
            found.append(f"{row['host']}: {row['problem']}")
    sides = {row["host"]: row["confirmed"] == bay.baselines[row["host"]].configuration for row in document["hosts"]}
    if len(set(sides.values())) != 1:
        found.append(f"some hosts have the change and some have not: {sides}")
    found += [f"open: {commit}" for commit in document["open_commits"]]
    return found + [f"unfinished: {run_id}" for run_id in document["unfinished_runs"]]


def _otherwise_than_told(bay: Bay, run: LiveRun) -> list[str]:
    """A verdict, or an exit code, that is not what the hosts have."""
    first = all(row["confirmed"] == bay.baselines[row["host"]].configuration for row in _status(bay)["hosts"])
    trials = run.result().get("trials", [])
    if trials:
        kept = any(trial["verdict"] == "KEEP" for trial in trials)
        return [] if kept != first else [f"{'KEEP' if kept else 'REVERT'} was told, and the hosts have the other"]
    if bay.kept:
        undone = run.process.returncode not in {3, INTERRUPTED}
        return (
            []
            if undone == first
            else [f"exit code {run.process.returncode}, and it is{'' if first else ' not'} undone"]
        )
    return []


def _status(bay: Bay) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bay.controller("status", "--fleet", bay.name, "--output", "json").stdout)
    return document
