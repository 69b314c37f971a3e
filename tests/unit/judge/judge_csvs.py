"""CSVs and sidecars as the agent writes them, of random latencies: a second implementation of docs/csv.md."""

from __future__ import annotations

import hashlib
import math
import random
from fractions import Fraction
from typing import Any

SHARED = "pair,block,arm,seq,intended_us,lag_us,latency_us,kernel_us,status,bytes,conn,reused,error"
HEADER, LIVE_HEADER = f"{SHARED},first_byte_us", f"{SHARED},class"
CONFIGURATIONS = {"control": "c" * 16, "variant": "d" * 16}


def _first_bit(text: str, byte: int = 0, bit: int = 0) -> int:
    return hashlib.sha256(text.encode()).digest()[byte] >> bit & 1


def workload(**changes: Any) -> dict[str, Any]:
    return {
        "rate": 100.0,
        "requests": [{"path": "/", "weight": 2}, {"path": "/missing", "expect_status": 404}],
        "timeout_ms": 50,
    } | changes


def build(
    *,
    design: str = "switchback",
    pairs: int = 2,
    planned: int = 4,
    half: bool = False,
    block_seconds: float = 0.2,
    burn_in_seconds: float = 0.05,
    seed: int = 7,
    random_seed: int = 1,
    failures: float = 0.05,
    late: frozenset[int] = frozenset(),
    **workload_changes: Any,
) -> tuple[str, dict[str, Any]]:
    """(csv text, sidecar). `half`: the last pair lacks its second block. `late`: blocks whose probe was late."""
    asked = workload(**workload_changes)
    draw = random.Random(random_seed)
    orders = [
        ["variant", "control"] if _first_bit(f"{seed}/h1/3/{n}/order") else ["control", "variant"]
        for n in range(1, planned + 1)
    ]
    if design == "soak":
        orders = [["variant"]] * planned
    width = len(orders[0])
    interval = round(1e9 / asked["rate"])
    burn_in = math.ceil(asked["rate"] * burn_in_seconds)
    counted = max(1, round(asked["rate"] * block_seconds))
    cycle = [0, 1, 0]
    offsets = [n % 3 for n in range(planned)]

    lines, blocks = [HEADER], []
    for pair in range(1, pairs + 1):
        rows: list[list[Any]] = []
        for place in (0,) if half and pair == pairs else range(width):
            for seq in range(burn_in + counted):
                due = (seq - burn_in) * interval / 1000
                rank = 0
                if design == "duet":
                    b_first = _first_bit(f"{seed}/h1/3/{pair}/slots/{seq // 256}", seq % 256 // 8, seq % 8)
                    rank = int(place != b_first)
                    due += rank * interval / 2000
                expected = asked["requests"][cycle[(offsets[pair - 1] + seq) % 3]].get("expect_status", 200)
                block = width * (pair - 1) + 1 + place
                row = _row(draw, failures, asked["timeout_ms"] * 1000, expected, late=block in late)
                key = (seq, rank) if design == "duet" else (place, seq)
                rows.append([key, pair, block, orders[pair - 1][place], seq, math.floor(due), *row])
        rows.sort(key=lambda row: row[0])
        lines += [",".join(str(value) for value in [*row[1:3], row[3][0], *row[4:]]) for row in rows]
        blocks += _summaries(rows, design, asked, [*cycle[offsets[pair - 1] :], *cycle[: offsets[pair - 1]]])
    text = "\n".join(lines) + "\n"
    return text, {
        "format": 2,
        "complete": True,
        "run": "r-1",
        "host": "h1",
        "trial": 3,
        "design": design,
        "arms": CONFIGURATIONS,
        "workload": asked,
        "schedule": {
            "seed": seed,
            "pairs": orders,
            "block_seconds": block_seconds,
            "burn_in_seconds": burn_in_seconds,
            "interval_ns": interval,
            "lag_limit_us": 5000,
            "mix": {"cycle": cycle, "offsets": offsets},
        },
        "limits": {"rate_kept": 0.95, "probe_busy_share": 0.5, "log_flush_seconds": 1.5},
        "software": {"version": "1", "python": "3.11.2", "nginx": "1.22.1", "kernel": "6.1"},
        "blocks": blocks,
        "connections": {},
        "csv": sealed(text),
    }


def build_live(
    *,
    pairs: int = 2,
    planned: int = 4,
    half: bool = False,
    empty: frozenset[int] = frozenset(),
    random_seed: int = 1,
    minimum_requests: int = 20,
) -> tuple[str, dict[str, Any]]:
    """(csv text, sidecar) of live traffic: 10 s a block, some 5 requests a second. `empty`: blocks without any."""
    _, sidecar = build(planned=planned)
    draw = random.Random(random_seed)
    orders = sidecar["schedule"]["pairs"]
    timeout = sidecar["workload"]["timeout_ms"] * 1000
    lines, blocks = [LIVE_HEADER], []
    for number in range(1, 2 * pairs + 1 - half):
        arm = orders[(number - 1) // 2][(number - 1) % 2]
        moments = [] if number in empty else sorted(draw.randrange(-1000, 10_000) for _ in range(55))
        rows = []
        for seq, moment in enumerate(moments):
            took = draw.choice([1, 4, 12, 30]) * 1000
            status, error = draw.choices(
                [(200, ""), (404, ""), (502, "status"), (200, "timeout"), (0, "eof")], [80, 5, 2, 2, 1]
            )[0]
            label = "api" if seq % 3 else "other"
            rows.append((moment * 1000, timeout if error else took, status, draw.randint(100, 900), error, label))
        for seq, (begun, took, status, size, error, label) in enumerate(rows):
            pair = (number + 1) // 2
            lines.append(f"{pair},{number},{arm[0]},{seq},{begun},0,{took},,{status},{size},0,1,{error},{label}")
        blocks.append(_live_summary(number, arm, [row for row in rows if row[0] >= 0], minimum_requests))
    text = "\n".join(lines) + "\n"
    schedule = {"seed": 7, "pairs": orders, "block_seconds": 10.0, "burn_in_seconds": 1.0}
    return text, sidecar | {
        "source": "live",
        "schedule": schedule | {"minimum_requests": minimum_requests},
        "blocks": blocks,
        "csv": sealed(text),
    }


def _live_summary(number: int, arm: str, rows: list[Any], minimum_requests: int) -> dict[str, Any]:
    def latencies(rows: list[Any]) -> dict[str, Any]:
        ordered = sorted(row[1] for row in rows)
        ranks = {f"p{percent}_us": _rank(ordered, percent) if rows else 0 for percent in (50, 90, 95, 99)}
        mean = round(sum(ordered) / len(ordered), 1) if rows else 0.0
        return {"requests": len(rows), **ranks, "mean_us": mean}

    enough = len(rows) >= minimum_requests
    return {
        "pair": (number + 1) // 2,
        "block": number,
        "arm": arm,
        "configuration": CONFIGURATIONS[arm],
        "started_at": 1.5,
        "seconds": 11.0,
        **latencies(rows),
        "errors": sum(row[4] != "" for row in rows),
        "error_classes": _tally(row[4] for row in rows if row[4]),
        "statuses": _tally(str(row[2]) for row in rows if row[2]),
        "user_p99_us": latencies(rows)["p99_us"],
        "lag_p99_us": 0,
        "achieved_rate": round(len(rows) / 10, 2),
        "bytes": sum(row[3] for row in rows),
        "paired_gain": None,
        "switch_seconds": 0.1,
        "valid": enough,
        "invalid_reason": "" if enough else f"{len(rows)} requests in 10 s of live traffic",
        "bodies": {"GET /": "5a" * 32},
        "metrics": {"cpu_us_per_request": 80.0, "rss_bytes": 10_000_000, "open_files": 20},
        "classes": {
            label: latencies([row for row in rows if row[5] == label]) for label in sorted({row[5] for row in rows})
        },
    }


def retold(text: str, sidecar: dict[str, Any]) -> dict[str, Any]:
    """The sidecar, sealed again, with the figures of blocks that follow from rows which a test has changed."""
    rows = [line.split(",") for line in text.splitlines()[1:]]
    typed = [
        ["", int(row[0]), int(row[1]), {"c": "control", "v": "variant"}[row[2]]]
        + [value if number == 12 or value == "" else int(value) for number, value in enumerate(row[3:], 3)]
        for row in rows
    ]
    mix = sidecar["schedule"]["mix"]
    blocks = []
    for pair in range(1, typed[-1][1] + 1):
        offset = mix["offsets"][pair - 1]
        asked = [*mix["cycle"][offset:], *mix["cycle"][:offset]]
        of_pair = [row for row in typed if row[1] == pair]
        blocks += _summaries(of_pair, sidecar["design"], sidecar["workload"], asked)
    return sidecar | {"blocks": blocks, "csv": sealed(text)}


def sealed(text: str) -> dict[str, Any]:
    """The sidecar's `csv`, as it would be for this text: for damage that the hash would hide."""
    raw = text.encode()
    return {
        "path": "3.csv.gz",
        "rows": text.count("\n") - 1,
        "bytes": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


def _row(draw: random.Random, failures: float, timeout: int, expected: int, *, late: bool) -> list[Any]:
    """lag, latency, kernel, status, bytes, conn, reused, error, first byte."""
    lag = draw.randint(0, 300) + (6000 if late else 0)
    if draw.random() < failures:
        error, status = draw.choice([("timeout", 0), ("truncated", 200), ("status", 502), ("connect", 0)])
        return [lag, timeout, "", status, 0, 0 if error == "connect" else 1, 1, error, ""]
    latency = lag + draw.randint(0, 2000)
    kernel = draw.choice(["", draw.randint(0, latency)])
    whole = latency if kernel == "" else kernel
    return [lag, latency, kernel, expected, draw.randint(100, 900), 1, 1, "", whole * 2 // 3 if latency % 9 else ""]


def _objective(row: list[Any]) -> int:
    return int(row[7] if row[8] == "" else row[8])


def _first_byte(row: list[Any]) -> int:
    return _objective(row) if row[14] == "" else int(row[14])


def _summaries(rows: list[list[Any]], design: str, asked: dict[str, Any], mix: list[int]) -> list[dict[str, Any]]:
    found = []
    counted_of_pair = [row for row in rows if row[5] >= 0]
    for number in sorted({row[2] for row in rows}):
        counted = [row for row in counted_of_pair if row[2] == number]
        ordered = sorted(_objective(row) for row in counted)
        window = counted_of_pair if design == "duet" else counted
        share = 2 if design == "duet" else 1
        first = min(row[5] for row in window)
        last = max(row[5] + row[6] for row in window)
        rate = len(window) / share * 1e6 / (last - first + 1e6 / asked["rate"] / share)
        lag = _rank(sorted(row[6] for row in counted), 99)
        valid = rate >= 0.95 * asked["rate"] and lag <= 5000
        found.append(
            {
                "pair": counted[0][1],
                "block": number,
                "arm": counted[0][3],
                "configuration": CONFIGURATIONS[counted[0][3]],
                "started_at": 1.5,
                "seconds": 0.2,
                "requests": len(counted),
                "errors": sum(row[13] != "" for row in counted),
                "error_classes": _tally(row[13] for row in counted if row[13]),
                "statuses": _tally(str(row[9]) for row in counted if row[9]),
                **{f"p{percent}_us": _rank(ordered, percent) for percent in (50, 90, 95, 99)},
                "mean_us": round(sum(ordered) / len(ordered), 1),
                "mean_p50_us": _mean_p50(counted, mix),
                "ttfb_p50_us": _rank(sorted(map(_first_byte, counted)), 50),
                "user_p99_us": _rank(sorted(row[7] for row in counted), 99),
                "lag_p99_us": lag,
                "achieved_rate": round(rate, 2),
                "bytes": sum(row[10] for row in counted),
                "paired_gain": _paired(counted_of_pair) if design == "duet" else None,
                "switch_seconds": 0.1,
                "valid": valid,
                "invalid_reason": "" if valid else "the probe was late",
                "bodies": {"GET /": "5a" * 32},
                "metrics": {"cpu_us_per_request": 80.0, "rss_bytes": 10_000_000, "open_files": 20},
            }
        )
    return found


def _mean_p50(rows: list[list[Any]], mix: list[int]) -> float:
    """`mix`: the requests in order, again and again."""
    alike = {request: [row for row in rows if mix[row[4] % len(mix)] == request] for request in set(mix)}
    p50s = {request: _rank(sorted(map(_objective, those)), 50) for request, those in alike.items() if those}
    return round(sum(p50s[mix[row[4] % len(mix)]] for row in rows) / len(rows), 1)


def _rank(ordered: list[int], percent: int) -> int:
    return ordered[math.ceil(Fraction(len(ordered) * percent, 100)) - 1]


def _tally(values: Any) -> dict[str, int]:
    tally: dict[str, int] = {}
    for value in values:
        tally[value] = tally.get(value, 0) + 1
    return tally


def _paired(rows: list[list[Any]]) -> float:
    by_slot: dict[int, dict[str, int]] = {}
    for row in rows:
        by_slot.setdefault(row[4], {})[row[3]] = max(1, _objective(row))
    logs = sorted(math.log(slot["control"] / slot["variant"]) for slot in by_slot.values())
    half = len(logs) // 2
    return round(logs[half] if len(logs) % 2 else (logs[half - 1] + logs[half]) / 2, 6)
