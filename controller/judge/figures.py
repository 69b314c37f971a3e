"""A block's figures from the rows that count (docs/csv.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from controller.judge.rows import Row
from controller.model.blocks import Block


def figures(rows: Sequence[Row]) -> dict[str, object]:
    """What any block's summary says of its rows; all 0 when there are none."""
    return {
        **latency_figures([row.objective_us for row in rows]),
        "errors": sum(row.error != "" for row in rows),
        "error_classes": dict(Counter(row.error for row in rows if row.error)),
        "statuses": {str(status): count for status, count in Counter(row.status for row in rows if row.status).items()},
        "user_p99_us": nearest_rank(sorted(row.latency_us for row in rows), 99),
        "lag_p99_us": nearest_rank(sorted(row.lag_us for row in rows), 99),
        "bytes": sum(row.size for row in rows),
    }


def latency_figures(objectives: Sequence[int]) -> dict[str, float | int]:
    """How many requests, and how long they took, in microseconds."""
    ordered = sorted(objectives)
    quantiles = {f"p{percent}_us": nearest_rank(ordered, percent) for percent in (50, 90, 95, 99)}
    mean = round(sum(ordered) / len(ordered), 1) if ordered else 0.0
    return {"requests": len(ordered), **quantiles, "mean_us": mean}


def mean_p50(rows: Sequence[Row], asked: Iterable[int]) -> float:
    """The mean of the requests' own p50 in microseconds, each as often as it was asked for, to one decimal."""
    by_request: defaultdict[int, list[int]] = defaultdict(list)
    for row, request in zip(rows, asked, strict=True):
        by_request[request].append(row.objective_us)
    total = sum(len(took) * nearest_rank(sorted(took), 50) for took in by_request.values())
    return round(total / len(rows), 1)


def ttfb_p50(rows: Sequence[Row], _asked: Iterable[int]) -> int | None:
    """The p50 of the time to first byte; None when the rows do not tell it."""
    told = [row.first_byte_us for row in rows if row.first_byte_us is not None]
    return nearest_rank(sorted(told), 50) if len(told) == len(rows) else None


# What is told of the probe's own requests at a steady rate only: by field of the block, from the rows that count and
# which request of the workload each was.
STEADY_FIGURES: dict[str, Callable[[Sequence[Row], Iterable[int]], float | None]] = {
    "mean_p50_us": mean_p50,
    "ttfb_p50_us": ttfb_p50,
}
UNTOLD: Mapping[str, None] = dict.fromkeys(STEADY_FIGURES)


def nearest_rank(ordered: Sequence[int], percent: int) -> int:
    """The ceil(percent/100 * n)-th smallest; 0 of none."""
    return ordered[(len(ordered) * percent + 99) // 100 - 1] if ordered else 0


def check_ran(block: Block) -> None:
    """Raises ValueError where a block counts as valid although nginx ran something else."""
    if block.valid and block.astray:
        shown = ", ".join(found or "nothing staged" for found in block.ran)
        raise ValueError(
            f"block {block.block}: called valid, but nginx did not run {block.configuration} all the while: {shown}"
        )


def compare(block: Block, computed: Mapping[str, object], place: str) -> None:
    """Raises ValueError for the first figure that is not what the sidecar's block says."""
    for name, value in computed.items():
        said = getattr(block, name)
        if said != value:
            raise ValueError(f"{place}, {name}: the sidecar says {said}, the rows give {value}")
