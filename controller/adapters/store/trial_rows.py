"""Rows of the table of trials, from what a run has recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Number of a trial -> when it began and when it ended, UTC, ISO 8601; None where that is not known.
Times = Mapping[int, tuple[str | None, str | None]]


def trial_rows(run_id: str, fleet: str, document: dict[str, Any], times: Times | None = None) -> list[dict[str, Any]]:
    """`document`: of RunResult, of any version. The effect is the one of fresh pairs where there is one.

    Raises KeyError, TypeError, AttributeError when it is none.
    """
    rows = []
    for trial in document.get("trials", []):
        effect = trial.get("confirmed_effect") or trial.get("effect") or {}
        started_at, ended_at = (times or {}).get(trial["trial"], (None, None))
        rows.append(
            {
                "run_id": run_id,
                "number": trial["trial"],
                "fleet": fleet,
                "experiment": trial["experiment"],
                "variant": trial["variant"],
                "verdict": trial["verdict"],
                "reason": trial["reason"],
                "objective": trial.get("objective", ""),
                "effect_low": effect.get("low"),
                "effect": effect.get("estimate"),
                "effect_high": effect.get("high"),
                "pairs": trial.get("pairs", 0),
                "hosts": json.dumps(trial.get("hosts", [])),
                "started_at": started_at,
                "ended_at": ended_at,
            }
        )
    return rows
