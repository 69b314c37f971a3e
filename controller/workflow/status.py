"""What each host of a fleet runs now, beside what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from controller.adapters.store import Store
from controller.model.fleet import Fleet
from controller.workflow.hosts import on_each_host, read_status, unfit


def fleet_status(fleet: Fleet, store: Store) -> dict[str, Any]:
    """`{"fleet", "hosts": [{"host","address","healthy","problem","live","confirmed","recorded","nginx","lease",
    "claim", "quarantined"}],
    "unfinished_runs": [...]}`. An unreachable host is a row with its problem, never an exception.
    """
    statuses, failures = on_each_host(fleet.hosts, read_status)
    recorded = store.baselines(fleet.name)
    quarantined = store.quarantined(fleet.name)
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
                "nginx": status.get("nginx", {}).get("version", ""),
                "lease": status.get("lease"),
                "claim": status.get("claim"),
                "quarantined": asdict(quarantined[host.name]) if host.name in quarantined else None,
            }
        )
    unfinished = [run_id for run_id, name, _ in store.unfinished() if name == fleet.name]
    return {"fleet": fleet.name, "hosts": rows, "unfinished_runs": unfinished}
