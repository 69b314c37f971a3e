"""The guardrails' figures over a whole trial, for the reader. The verdict is the judge's, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import get_args

from controller.judge.gain import figure
from controller.model.blocks import Block
from controller.model.experiment import Guardrails
from controller.model.metrics import GUARDRAILS, Limit, MetricSpec, Unit
from controller.model.trial import Pair


@dataclass(frozen=True)
class GuardrailRow:
    """One guardrail: figures of both arms, and the limit, in words."""

    name: str
    control: str
    variant: str
    ratio: str
    limit: str


def guardrail_rows(guardrails: Guardrails, pairs: Sequence[Pair]) -> list[GuardrailRow]:
    """A row a guardrail; empty without pairs. Figures of an arm are the median of its blocks, errors their sum."""
    if not pairs:
        return []
    controls, variants = [pair.control for pair in pairs], [pair.variant for pair in pairs]
    rows = [
        GuardrailRow(
            "failed requests", _failed(controls), _failed(variants), "", f"at most {guardrails.error_rate:.2%}"
        )
    ]
    for limit in get_args(Limit):
        metric, guardrail = GUARDRAILS[limit]
        control, variant = _median(metric, controls), _median(metric, variants)
        rows.append(
            GuardrailRow(
                name=guardrail.row,
                control="not told" if control is None else _told(control, metric.unit),
                variant="not told" if variant is None else _told(variant, metric.unit),
                ratio=f"{variant / control:.2f}x" if control and variant is not None else "",
                limit=f"at most {getattr(guardrails, limit):g}x",
            )
        )
    if guardrails.same_body:
        same = all(_same_bodies(pair) for pair in pairs)
        rows.append(
            GuardrailRow("content", "", "the same" if same else "DIFFERENT", "", "the same decoded bodies in both arms")
        )
    return rows


def _failed(blocks: Sequence[Block]) -> str:
    errors, requests = sum(block.errors for block in blocks), sum(block.requests for block in blocks)
    share = f" ({errors / requests:.2%})" if errors and requests else ""
    return f"{errors} of {requests}{share}"


def _median(metric: MetricSpec, blocks: Sequence[Block]) -> float | None:
    told = [value for block in blocks if (value := figure(block, metric)) is not None]
    return median(told) if told else None


def _same_bodies(pair: Pair) -> bool:
    return pair.control.bodies == pair.variant.bodies


def _told(value: float, unit: Unit) -> str:
    """Of microseconds or bytes in the metric's unit."""
    match unit:
        case "ms":
            return f"{value / 1000:.3g} ms" if value < 1e6 else f"{value / 1000:.0f} ms"
        case "us":
            return f"{value:.0f} µs"
        case "MiB":
            return f"{value / 2**20:.1f} MiB"
        case "files":
            return f"{value:.0f}"
        case "requests/s":
            return f"{value:.0f} requests/s"
