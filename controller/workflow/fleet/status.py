"""What each host of a fleet runs now, beside what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from controller.adapters.store import open_commits
from controller.model.errors import RatchetError
from controller.model.events import Notice
from controller.workflow.context import RunContext
from controller.workflow.fleet.configurations import undeployed
from controller.workflow.fleet.hosts import on_each_host, read_status, unfit


def fleet_status(context: RunContext) -> dict[str, Any]:
    """`{"fleet", "hosts": [{"host","address","healthy","problem","live","confirmed","recorded","inventory","nginx",
    "lease","claim","quarantined"}], "unfinished_runs": [...], "open_commits": [{"why","run","forward","hosts"}]}`.

    `inventory`: what the next deployment would make of the host; empty where that is not known, because it does not
    answer or a run is at work there. An unreachable host is a row with its problem, never an exception.
    """
    fleet, store = context.fleet, context.store
    statuses, failures = on_each_host(fleet.hosts, read_status)
    recorded = store.baselines(fleet.name)
    quarantined = store.quarantined(fleet.name)
    written = _written(context, statuses)
    rows = []
    for host in fleet.hosts:
        status = statuses.get(host.name, {})
        problem = failures[host.name].what if host.name in failures else unfit(status)
        rows.append(
            {
                "host": host.name,
                "address": host.address,
                "healthy": not problem,
                "problem": problem,
                "live": status.get("live") or "",
                "confirmed": status.get("confirmed") or "",
                "recorded": recorded[host.name].configuration if host.name in recorded else "",
                "inventory": written.get(host.name, ""),
                "nginx": status.get("nginx", {}).get("version", ""),
                "lease": status.get("lease"),
                "claim": status.get("claim"),
                "quarantined": asdict(quarantined[host.name]) if host.name in quarantined else None,
            }
        )
    unfinished = [run_id for run_id, name, _ in store.unfinished() if name == fleet.name]
    commits = [
        {"why": commit.why, "run": commit.run_id, "forward": commit.forward, "hosts": commit.open}
        for commit in open_commits(store, fleet.name)
    ]
    return {"fleet": fleet.name, "hosts": rows, "unfinished_runs": unfinished, "open_commits": commits}


def _written(context: RunContext, statuses: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Host -> what the inventory renders to."""
    asked = {
        name: str(status["confirmed"])
        for name, status in statuses.items()
        if status.get("confirmed") and not status.get("claim") and not status.get("lease")
    }
    if not asked:
        return {}
    try:
        differing = undeployed(context, asked)
    except RatchetError as error:
        context.observer(Notice(level="warning", text=f"what the inventory says is not known: {error}"))
        return {}
    return {
        name: configuration if name not in differing else differing[name].rendered or ""
        for name, configuration in asked.items()
    }
