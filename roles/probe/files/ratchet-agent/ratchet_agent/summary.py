"""What the rows of a block say."""

from __future__ import annotations

import array
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from ratchet_agent.exchange import ERRORS
from ratchet_agent.plan import Plan
from ratchet_agent.rows import Rows, sending_order


def nearest_ranks(values: Iterable[int], *percents: int) -> list[int]:
    """For each of the percents, in rising order, the ceil(percent/100 * n)-th smallest; 0 when there are no values.

    Counted (they may be already, as a Counter), not sorted: a million times in microseconds have a few thousand values.
    """
    counts = Counter(values)
    total = counts.total()
    found: list[int] = []
    passed = 0
    for value in sorted(counts):
        passed += counts[value]
        while len(found) < len(percents) and passed >= (total * percents[len(found)] + 99) // 100:
            found.append(value)
    return found or [0] * len(percents)


def paired_gain(control: array.array[int], variant: array.array[int]) -> float:
    """Median over a duet's request pairs of ln(control / variant), rounded to six decimals."""
    gains = sorted(math.log(max(c, 1) / max(v, 1)) for c, v in zip(control, variant, strict=True))
    middle = len(gains) // 2
    median = gains[middle] if len(gains) % 2 else (gains[middle - 1] + gains[middle]) / 2
    return round(median, 6)


def achieved_rate(blocks: list[Rows], rate: float) -> float:
    """Requests per second and arm that the probe really made, over the blocks that ran at once."""
    counted = [(rows.intended[rows.burn_in :], rows.lag[rows.burn_in :]) for rows in blocks]
    first = min(min(intended) for intended, _ in counted)
    last = max(max(map(int.__add__, intended, lag)) for intended, lag in counted)
    requests = sum(len(intended) for intended, _ in counted)
    share = 1_000_000 // len(blocks)
    return requests * share / (last - first + share / rate)


def saturated_rates(blocks: list[Rows]) -> list[float]:
    """Requests answered a second of each block, over its turns: the runs of its requests in the order of sending.

    A turn lasts from its first request to its last answer. A failed request is not counted, and lasts its timeout.
    """
    answered, busy = [0] * len(blocks), [0] * len(blocks)
    for position, turn in itertools.groupby(sending_order(blocks, counted=True), key=lambda sent: sent[1]):
        rows = blocks[position]
        begun, ended = -1, 0
        for intended, _, row in turn:
            if begun < 0:
                begun = intended
            ended = max(ended, intended + rows.latency[row])
            answered[position] += not rows.error[row]
        busy[position] += ended - begun
    return [1e6 * requests / max(1, microseconds) for requests, microseconds in zip(answered, busy, strict=True)]


def summarise(
    rows: Rows,
    plan: Plan,
    asked: Iterator[int],
    *,
    achieved: float,
    clock_set: bool,
    probe_busy_share: float | None = None,
) -> dict[str, Any]:
    """The part of a block's summary that follows from its rows (docs/csv.md).

    Args:
        asked: which request of the workload each row was, in order of sequence; may go on.
    """
    first = rows.burn_in
    objectives = rows.objectives()
    errors = Counter(ERRORS[error] for error in rows.error[first:] if error)
    lag_p95, lag_p99 = nearest_ranks(rows.lag[first:], 95, 99)
    reasons = []
    if probe_busy_share is not None:
        # It takes that much from the server on one core, and leaves answers waiting on more. Not its CPU time: a probe
        # that waits for a core is the bottleneck as well.
        if probe_busy_share > plan.probe_busy_share:
            reasons.append(
                f"the probe was busy for {probe_busy_share:.0%} of the time at {achieved:.0f} requests per second "
                f"(limit {plan.probe_busy_share:.0%}): it would measure itself; ask for what costs the server more"
            )
    elif achieved < plan.rate_kept * plan.rate:
        reasons.append(f"achieved {achieved:.2f} of {plan.rate:g} requests per second")
    if probe_busy_share is None and lag_p95 > plan.lag_limit_us:
        reasons.append(f"the probe lagged {lag_p95} us behind its schedule (p95; limit {plan.lag_limit_us})")
    if errors["local"]:
        reasons.append(f"the probe itself failed {errors['local']} requests (local)")
    if clock_set:
        reasons.append(CLOCK_WAS_SET)
    return {
        **latency_figures(objectives),
        **(UNTOLD if plan.saturation else steady_figures(rows, objectives, itertools.islice(asked, first, None))),
        "errors": sum(errors.values()),
        "error_classes": {error: errors[error] for error in sorted(errors) if errors[error]},
        "statuses": {str(status): n for status, n in sorted(Counter(rows.status[first:]).items()) if status},
        "user_p99_us": nearest_ranks(rows.latency[first:], 99)[0],
        "lag_p99_us": lag_p99,
        "achieved_rate": round(achieved, 2),
        "probe_busy_share": probe_busy_share,
        "bytes": sum(rows.size[first:]),
        "valid": not reasons,
        "invalid_reason": "; ".join(reasons),
        "classes": {},
    }


# What is told of the probe's own requests at a steady rate only.
UNTOLD = dict.fromkeys(("mean_p50_us", "ttfb_p50_us"))


def steady_figures(rows: Rows, objectives: array.array[int], asked: Iterable[int]) -> dict[str, float | int]:
    """Each of UNTOLD."""
    return {"mean_p50_us": mean_p50(objectives, asked), "ttfb_p50_us": nearest_ranks(rows.first_bytes(), 50)[0]}


CLOCK_WAS_SET = "the host's clock was set"


def held_against(summary: dict[str, Any], configuration: str, ran: list[str | None]) -> dict[str, Any]:
    """The summary of a block, invalid where nginx did not run its configuration.

    Args:
        ran: what nginx's workers showed before and after it; empty when not told; None where that is nothing
            staged, or by another nginx than the trial began with.
    """
    reasons = [summary["invalid_reason"]] if summary["invalid_reason"] else []
    for found, when in zip(ran, ("before", "after"), strict=False):
        if found != configuration:
            instead = f"ran {found}" if found else "was restarted, or ran what nobody staged,"
            reasons.append(f"nginx {instead} {when} this block, not {configuration}")
    return {**summary, "ran": ran, "valid": not reasons, "invalid_reason": "; ".join(reasons)}


def mean_p50(objectives: array.array[int], asked: Iterable[int]) -> float:
    """The mean of the requests' own p50 in microseconds, each as often as it was asked for, to one decimal."""
    by_request: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for objective, request in zip(objectives, asked, strict=False):
        by_request[request][objective] += 1
    total = sum(took.total() * nearest_ranks(took, 50)[0] for took in by_request.values())
    return round(total / len(objectives), 1)


def latency_figures(objectives: array.array[int]) -> dict[str, float | int]:
    """How many requests, and how long they took, in microseconds; all 0 when there was none."""
    quantiles = zip((50, 90, 95, 99), nearest_ranks(objectives, 50, 90, 95, 99), strict=True)
    mean = round(sum(objectives) / len(objectives), 1) if objectives else 0.0
    return {"requests": len(objectives), **{f"p{percent}_us": value for percent, value in quantiles}, "mean_us": mean}
