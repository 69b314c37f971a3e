"""The rows of a trial's CSV, read strictly: every complaint names the line and the field (docs/csv.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

COLUMNS = (
    "pair", "block", "arm", "seq", "intended_us", "lag_us", "latency_us", "kernel_us", "status", "bytes", "conn",
    "reused", "error",
)  # fmt: skip
HEADER = ",".join(COLUMNS)
LIVE_COLUMNS = (*COLUMNS, "class")
ERRORS = ("timeout", "connect", "tls", "reset", "eof", "stale", "truncated", "protocol", "status", "local")

_COUNT = r"0|[1-9][0-9]{0,14}"
_PATTERNS = {
    "pair": r"[1-9][0-9]{0,8}",
    "block": r"[1-9][0-9]{0,8}",
    "arm": "[cv]",
    "seq": _COUNT,
    "intended_us": r"0|-?[1-9][0-9]{0,14}",
    "lag_us": _COUNT,
    "latency_us": _COUNT,
    "kernel_us": f"|{_COUNT}",
    "status": "0|[1-5][0-9]{2}",
    "bytes": _COUNT,
    "conn": _COUNT,
    "reused": "[012]",
    "error": "|" + "|".join(ERRORS),
    "class": "[a-z][a-z0-9_-]{0,31}",
}
_ROW = re.compile(",".join(f"({_PATTERNS[column]})" for column in COLUMNS))
_LIVE_ROW = re.compile(",".join(f"({_PATTERNS[column]})" for column in LIVE_COLUMNS))


class Row(NamedTuple):
    """One request. `objective_us` counts: the timeout when it failed, else the kernel's time, else the probe's.

    `label`: the class of a live request, else empty.
    """

    line: int
    pair: int
    block: int
    arm: str
    seq: int
    intended_us: int
    lag_us: int
    latency_us: int
    stamped: bool
    objective_us: int
    status: int
    size: int
    error: str
    label: str


def wrong(line: int, field: str, text: str) -> ValueError:
    """The complaint about one field of one line; line 1 is the header."""
    return ValueError(f"CSV line {line}, {field}: {text}")


def read_rows(csv_text: str, timeout_us: int, *, live: bool = False) -> Iterator[Row]:
    """The rows in order, each checked by itself. Raises ValueError with line and field."""
    lines = csv_text.split("\n")
    columns = LIVE_COLUMNS if live else COLUMNS
    if lines[0] != ",".join(columns):
        raise wrong(1, "header", f"expected {','.join(columns)}, got {lines[0][:120]!r}")
    if lines.pop() != "":
        raise wrong(len(lines) + 1, "end", "the last line has no line end: the file is truncated")
    match = (_LIVE_ROW if live else _ROW).fullmatch
    for number, text in enumerate(lines[1:], 2):
        found = match(text)
        if found is None:
            raise _malformed(number, text, columns)
        pair, block, arm, seq, intended, lag, latency, kernel, status, size, conn, _, error, *label = found.groups()
        latency_us = int(latency)
        if error:
            if latency_us != timeout_us:
                raise wrong(
                    number, "latency_us", f"a failed request counts as the timeout, {timeout_us}, not {latency}"
                )
            if kernel:
                raise wrong(number, "kernel_us", "a failed request has no kernel stamp")
            if error == "status" and status == "0":
                raise wrong(number, "status", "the error `status` needs a status")
            objective = timeout_us
        else:
            if latency_us > timeout_us:
                raise wrong(number, "latency_us", f"{latency} is beyond the timeout, {timeout_us}, without an error")
            if status == "0" or (conn == "0" and not live):
                raise wrong(number, "status" if status == "0" else "conn", "0 without an error")
            objective = int(kernel) if kernel else latency_us
            if objective > latency_us:
                raise wrong(number, "kernel_us", f"{kernel} is later than latency_us, {latency}")
        yield Row(
            number, int(pair), int(block), arm, int(seq), int(intended), int(lag), latency_us, kernel != "", objective,
            int(status), int(size), error, label[0] if label else "",
        )  # fmt: skip


def check_status(row: Row, expected: int) -> None:
    """Raises ValueError when status and error do not say the same of the answer."""
    if row.error in {"", "status"} and (row.status == expected) != (row.error == ""):
        raise wrong(row.line, "status", f"{row.status} with error {row.error!r}, where {expected} was asked for")


def _malformed(number: int, text: str, columns: tuple[str, ...]) -> ValueError:
    fields = text.split(",")
    if len(fields) != len(columns):
        return wrong(number, "columns", f"expected {len(columns)} columns, got {len(fields)}: {text[:120]!r}")
    for column, value in zip(columns, fields, strict=True):
        if not re.fullmatch(_PATTERNS[column], value):
            return wrong(number, column, f"{value[:40]!r} is not what docs/csv.md allows")
    raise AssertionError("unreachable: a row whose every field matches is well formed")
