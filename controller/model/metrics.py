"""The metrics: where each is read, which way is better, how it is told, where it may be an objective or a guardrail.

Judge, verify, the reader of experiments, report and dashboard ask here. What a metric is, in terms of rows, is in
docs/csv.md, and computed by judge/figures.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What an objective may name; each is in METRICS.
Metric = Literal[
    "p50", "p90", "p95", "p99", "mean", "mean_p50", "ttfb_p50", "cpu_per_request", "memory", "throughput"
]  # fmt: skip
# A guardrail on the ratio of the variant's figure to control's, by its field in the experiment's `guardrails`.
Limit = Literal["p99_ratio", "memory_ratio", "open_files_ratio", "cpu_ratio"]
LimitReason = Literal["guardrail-p99", "guardrail-memory", "guardrail-open-files", "guardrail-cpu"]
Unit = Literal["ms", "us", "MiB", "files", "requests/s"]
Mode = Literal["steady", "saturation"]
STEADY: frozenset[Mode] = frozenset({"steady"})
SATURATION: frozenset[Mode] = frozenset({"saturation"})
ANY_MODE = STEADY | SATURATION


@dataclass(frozen=True)
class Guardrail:
    """How a metric limits a trial.

    Args:
        material: below this difference, in the unit of the figure, a ratio says nothing: what a scheduler, an
            allocator or a few connections do by themselves.
        steady: two pairs that exceed the limit are enough; else it takes evidence.
        name: in a note; `row` in the report's table.
        sentence: why a trial ended; `{}` in `with_limit` stands for the ratio.
    """

    limit: Limit
    reason: LimitReason
    material: float
    steady: bool
    name: str
    row: str
    sentence: str
    with_limit: str


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Args:
        field: of a block (model/blocks.py) and, with `of_classes`, of each class of live traffic. A latency that
            nginx's log tells is there; anything else is compared over whole blocks.
        unit: what its figures are told in. In rows and sidecar, time is microseconds and memory bytes.
        words: `less <words>`.
        short: `<short> 12.0 % lower`.
        cost: what gets less as the metric gets better, where that is not the metric itself.
        modes: of the workload, in which it may be an objective; in none, it is a guardrail only.
        not_live: why it is no objective of live traffic; empty: it may be one.
        column: the CSV's, that it is computed from and that not every agent has written.
        paired: a block of a duet tells the gain itself, request by request (`paired_gain`).
        at_end: read of nginx's processes when the block ends: a longer block makes it no sharper, and 0 says that they
            are gone.
        at_rate: what is asked of a live instance instead, which is never saturated.
    """

    field: str
    unit: Unit
    words: str
    short: str
    of_classes: bool = False
    more_is_better: bool = False
    cost: str = ""
    modes: frozenset[Mode] = STEADY
    not_live: str = ""
    column: str = ""
    paired: bool = False
    at_end: bool = False
    at_rate: Metric | None = None
    guardrail: Guardrail | None = None


# Guardrails are checked in this order.
METRICS: dict[str, MetricSpec] = {
    "p50": MetricSpec("p50_us", "ms", "p50 latency", "p50", of_classes=True, paired=True),
    "p90": MetricSpec("p90_us", "ms", "p90 latency", "p90", of_classes=True),
    "p95": MetricSpec("p95_us", "ms", "p95 latency", "p95", of_classes=True),
    "mean": MetricSpec("mean_us", "ms", "mean latency", "mean", of_classes=True),
    "mean_p50": MetricSpec(
        "mean_p50_us",
        "ms",
        "mean of the requests' p50 latency",
        "mean_p50",
        not_live="asks for the requests of a workload, which live traffic has not",
    ),
    "ttfb_p50": MetricSpec(
        "ttfb_p50_us",
        "ms",
        "p50 time to first byte",
        "ttfb_p50",
        not_live="asks when a response began, which nginx's log does not tell",
        column="first_byte_us",
    ),
    "memory": MetricSpec(
        "metrics.rss_bytes",
        "MiB",
        "nginx memory",
        "memory",
        modes=ANY_MODE,
        at_end=True,
        guardrail=Guardrail(
            "memory_ratio",
            "guardrail-memory",
            material=16.0 * 2**20,
            steady=True,
            name="memory",
            row="nginx memory",
            sentence="nginx took far more memory than with the control",
            with_limit="nginx took more than {} the control's memory",
        ),
    ),
    "open_files": MetricSpec(
        "metrics.open_files",
        "files",
        "open files",
        "open files",
        modes=frozenset(),
        at_end=True,
        guardrail=Guardrail(
            "open_files_ratio",
            "guardrail-open-files",
            material=64.0,
            steady=True,
            name="open files",
            row="open files",
            sentence="nginx held far more open files than with the control",
            with_limit="nginx held more than {} the control's open files",
        ),
    ),
    "cpu_per_request": MetricSpec(
        "metrics.cpu_us_per_request",
        "us",
        "CPU time per request",
        "CPU per request",
        modes=ANY_MODE,
        guardrail=Guardrail(
            "cpu_ratio",
            "guardrail-cpu",
            material=20.0,
            steady=False,
            name="CPU time per request",
            row="CPU per request",
            sentence="nginx spent far more CPU time on a request than with the control",
            with_limit="nginx spent more than {} the control's CPU time on a request",
        ),
    ),
    "p99": MetricSpec(
        "p99_us",
        "ms",
        "p99 latency",
        "p99",
        of_classes=True,
        guardrail=Guardrail(
            "p99_ratio",
            "guardrail-p99",
            material=250.0,
            steady=False,
            name="p99",
            row="slowest requests (p99)",
            sentence="its slowest requests (p99) took far longer than the control's",
            with_limit="its slowest requests (p99) took more than {} the control's",
        ),
    ),
    "throughput": MetricSpec(
        "achieved_rate",
        "requests/s",
        "requests a second at saturation",
        "throughput",
        more_is_better=True,
        cost="time a request at saturation",
        modes=SATURATION,
        at_rate="p50",
    ),
}
GUARDRAILS: dict[Limit, tuple[MetricSpec, Guardrail]] = {
    spec.guardrail.limit: (spec, spec.guardrail) for spec in METRICS.values() if spec.guardrail
}
