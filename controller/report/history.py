"""Past runs as rows: one document for `controller history`, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controller.model.run import RunPlan, RunResult

UNFINISHED = "unfinished"


def history_rows(runs: Iterable[tuple[RunPlan | None, RunResult | None]]) -> list[dict[str, Any]]:
    """`{"run_id", "fleet", "status", "started_at", "seconds", "seed", "verdicts": [...]}` each, in the order given.

    A run without a result is `unfinished`, and its seconds are None. A pair of two Nones is left out.
    """
    rows = []
    for plan, result in runs:
        if result is not None:
            rows.append(_sealed(result))
        elif plan is not None:
            rows.append(_unfinished(plan))
    return rows


def _sealed(result: RunResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "fleet": result.fleet,
        "status": result.status,
        "started_at": result.started_at,
        "seconds": result.seconds,
        "seed": result.seed,
        "verdicts": [
            {
                "trial": trial.trial,
                "experiment": trial.experiment,
                "variant": trial.variant,
                "verdict": trial.verdict,
                "reason": trial.reason,
            }
            for trial in result.trials
        ],
    }


def _unfinished(plan: RunPlan) -> dict[str, Any]:
    return {
        "run_id": plan.run_id,
        "fleet": plan.fleet,
        "status": UNFINISHED,
        "started_at": plan.created_at,
        "seconds": None,
        "seed": plan.seed,
        "verdicts": [],
    }
