"""Plans, pairs and blocks as numbers, for the judge's tests."""

from __future__ import annotations

import math
from typing import Any

from controller.model.blocks import Arm, Block, SideMetrics
from controller.model.experiment import Experiment
from controller.model.trial import Pair, TrialPlan, TrialTiming

BODY = {"GET /": "5a" * 32}
CONTROL_US = 100_000


def plan(
    *,
    design: str = "switchback",
    minimum_effect: float = 0.03,
    metric: str = "p50",
    objective: dict[str, Any] | None = None,
    variants: int = 1,
    hosts: tuple[str, ...] = ("h1",),
    guardrails: dict[str, Any] | None = None,
    source: str = "probe",
    **timing: int,
) -> TrialPlan:
    experiment = Experiment.model_validate(
        {
            "name": "gzip",
            "question": "Is another level better?",
            "why": "because it may be",
            "risk": {"level": "low", "note": "none"},
            "sources": ["a hunch"],
            "variants": [{"name": "v", "parameters": {"nginx_gzip_comp_level": 4}}],
            "workload": {"rate": 200, "requests": [{"path": "/"}]},
            "objective": objective or {"metric": metric, "minimum_effect": minimum_effect},
            "guardrails": guardrails or {},
            "timing": timing,
            "source": source,
        }
    )
    assert design in ("duet", "switchback", "fleet")
    return TrialPlan(
        number=1,
        experiment=experiment,
        variant=experiment.variants[0],
        design=design,
        timing=TrialTiming.of(experiment.timing, design),
        hosts=list(hosts),
        seed=7,
        alpha=0.05,
        variants_in_run=variants,
    )


def block(number: int, arm: Arm, p50_us: int, **changes: Any) -> Block:
    metrics = {"cpu_us_per_request": 80.0, "rss_bytes": 40_000_000, "open_files": 30} | changes.pop("metrics", {})
    values: dict[str, Any] = {
        "pair": (number + 1) // 2,
        "block": number,
        "arm": arm,
        "configuration": arm,
        "started_at": 0.0,
        "seconds": 2.0,
        "requests": 400,
        "errors": 0,
        "p50_us": p50_us,
        "p90_us": 2 * p50_us,
        "p95_us": 2 * p50_us,
        "p99_us": 3 * p50_us,
        "mean_us": float(p50_us),
        "user_p99_us": 3 * p50_us,
        "lag_p99_us": 100,
        "achieved_rate": 200.0,
        "bytes": 400_000,
        "switch_seconds": 0.1,
        "valid": True,
        "bodies": BODY,
        "metrics": SideMetrics(**metrics),
    }
    return Block.model_validate(values | changes)


def pair(
    number: int,
    gain: float = 0.0,
    *,
    host: str = "h1",
    control: dict[str, Any] | None = None,
    variant: dict[str, Any] | None = None,
) -> Pair:
    """A pair whose p50s give about this gain; in a duet exactly this."""
    told = {"paired_gain": gain}
    slow = round(CONTROL_US * math.exp(-gain))
    return Pair(
        host=host,
        number=number,
        control=block(2 * number - 1, "control", CONTROL_US, **(told | (control or {}))),
        variant=block(2 * number, "variant", slow, **(told | (variant or {}))),
    )


def pairs(gains: list[float], **changes: Any) -> list[Pair]:
    return [pair(number, gain, **changes) for number, gain in enumerate(gains, 1)]
