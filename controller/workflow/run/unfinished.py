"""Runs that were never sealed: how far each came, and whether its process still lives."""

from __future__ import annotations

import json
from pathlib import Path
from socket import gethostname
from typing import Any

from controller.adapters.store import FleetLock, Store, held_row
from controller.model.project import Project


def unfinished_runs(project: Project, store: Store) -> list[dict[str, Any]]:
    """`[{"run_id", "fleet", "started_at", "alive", "last"}]`, oldest first; `last` is the last event in words."""
    return [
        {
            "run_id": run_id,
            "fleet": fleet,
            "started_at": started_at,
            "alive": _alive(project, store, fleet, run_id),
            "last": _last_event(project.runs / run_id / "log.jsonl"),
        }
        for run_id, fleet, started_at in store.unfinished()
    ]


def _alive(project: Project, store: Store, fleet: str, run_id: str) -> bool:
    """Whether a live process is carrying out this run, here or on another machine."""
    holder = FleetLock.holder(project, fleet)
    if holder is not None:
        return holder.run_id == run_id
    held = held_row(store, fleet)
    return held is not None and held[0].run_id == run_id and held[0].machine != gethostname() and held[1] > 0


def _last_event(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the line that was being written when the controller died
        return f"{event.get('at', '')} {_words(event)}".strip()
    return ""


def _words(event: dict[str, Any]) -> str:
    if "text" in event:
        return str(event["text"])
    kind = str(event.get("event", ""))
    if kind == "trial-started":
        return f"trial {event['plan']['number']} started"
    if kind == "pair":
        return f"trial {event['trial']}: pair {event['judgement']['pairs']} judged"
    if kind == "trial-ended":
        return f"trial {event['result']['trial']} ended: {event['result']['verdict']} {event['result']['reason']}"
    return kind
