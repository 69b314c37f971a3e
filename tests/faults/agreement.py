"""After a commit or a rollback that was broken: record, hosts and settings say the same, and so does what was told."""

from __future__ import annotations

import json
from typing import Any

from tests.faults.bay import Bay
from tests.faults.fault import INTERRUPTED
from tests.faults.live_run import LiveRun

# It is told as carried out, or as stopped: then it is so. Else the next command finishes what was begun.
ENDED = {0, INTERRUPTED}
FINISH_SECONDS = 400


def disagreements(bay: Bay, run: LiveRun) -> list[str]:
    """What is wrong once the fault is over: at once where the command came to its end, else after the next one."""
    found: list[str] = []
    if run.process.returncode in ENDED:
        found += [f"when it had ended: {what}" for what in [*_differences(bay), *_otherwise_than_told(bay, run)]]
    if run.process.returncode not in ENDED or any(row["claim"] for row in _status(bay)["hosts"]):
        found += _finished_by_the_next_command(bay)
    return found


def _finished_by_the_next_command(bay: Bay) -> list[str]:
    left = bay.unfinished()
    command = ["resume", left[0]] if left else ["rollback", "--fleet", bay.name]
    done = bay.controller(*command, timeout=FINISH_SECONDS)
    found = [f"after `controller {' '.join(command)}`: {what}" for what in _differences(bay)]
    # The resumed run may end as the fault has ended its trial.
    if done.returncode not in ({0, 3} if left else {0}):
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
        undone = run.process.returncode != INTERRUPTED
        return (
            []
            if undone == first
            else [f"exit code {run.process.returncode}, and it is{'' if first else ' not'} undone"]
        )
    return []


def _status(bay: Bay) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bay.controller("status", "--fleet", bay.name, "--output", "json").stdout)
    return document
