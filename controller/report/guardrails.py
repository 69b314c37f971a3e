"""The guardrails' figures over a whole trial, for the reader. The verdict is the judge's, pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from controller.model.blocks import Block
from controller.model.experiment import Guardrails
from controller.model.trial import Pair

Figure = Callable[[Block], float | None]


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
    ratios: list[tuple[str, Figure, Callable[[float], str], float]] = [
        ("slowest requests (p99)", lambda block: block.p99_us, _milliseconds, guardrails.p99_ratio),
        ("nginx memory", lambda block: block.metrics.rss_bytes, _mebibytes, guardrails.memory_ratio),
        ("open files", lambda block: block.metrics.open_files, _number, guardrails.open_files_ratio),
        ("CPU per request", lambda block: block.metrics.cpu_us_per_request, _microseconds, guardrails.cpu_ratio),
    ]
    rows = [
        GuardrailRow(
            "failed requests", _failed(controls), _failed(variants), "", f"at most {guardrails.error_rate:.2%}"
        )
    ]
    for name, figure, words, limit in ratios:
        control, variant = _median(figure, controls), _median(figure, variants)
        rows.append(
            GuardrailRow(
                name=name,
                control="not told" if control is None else words(control),
                variant="not told" if variant is None else words(variant),
                ratio=f"{variant / control:.2f}x" if control and variant is not None else "",
                limit=f"at most {limit:g}x",
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


def _median(figure: Figure, blocks: Sequence[Block]) -> float | None:
    told = [value for value in map(figure, blocks) if value is not None]
    return median(told) if told else None


def _same_bodies(pair: Pair) -> bool:
    return pair.control.bodies == pair.variant.bodies


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:.3g} ms" if microseconds < 1e6 else f"{microseconds / 1000:.0f} ms"


def _microseconds(value: float) -> str:
    return f"{value:.0f} µs"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"


def _number(value: float) -> str:
    return f"{value:.0f}"
