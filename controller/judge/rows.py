"""The rows of a trial's CSV, read strictly: every complaint names the line and the field (docs/csv.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from controller.model.experiment import Source
from controller.model.metrics import METRICS, Metric

ERRORS = ("timeout", "connect", "tls", "reset", "eof", "stale", "truncated", "protocol", "status", "local")

_COUNT = r"0|[1-9][0-9]{0,14}"


class Column(NamedTuple):
    """A column and what its values match.

    Args:
        source: whose rows have it; None: the probe's and those of live traffic.
        since: the format (`FORMATS`) that it came with.
    """

    name: str
    pattern: str
    source: Source | None = None
    since: int = 1


# What an agent may have written, oldest first: the `format` of its sidecar.
FORMATS = (1, 2)
COLUMNS = (
    Column("pair", r"[1-9][0-9]{0,8}"),
    Column("block", r"[1-9][0-9]{0,8}"),
    Column("arm", "[cv]"),
    Column("seq", _COUNT),
    Column("intended_us", r"0|-?[1-9][0-9]{0,14}"),
    Column("lag_us", _COUNT),
    Column("latency_us", _COUNT),
    Column("kernel_us", f"|{_COUNT}"),
    Column("status", "0|[1-5][0-9]{2}"),
    Column("bytes", _COUNT),
    Column("conn", _COUNT),
    Column("reused", "[012]"),
    Column("error", "|" + "|".join(ERRORS)),
    Column("first_byte_us", f"|{_COUNT}", source="probe", since=2),
    Column("class", "[a-z][a-z0-9_-]{0,31}", source="live"),
)


def columns_of(source: Source, written: int = FORMATS[-1]) -> tuple[Column, ...]:
    """The columns of a CSV of that format, in order."""
    return tuple(column for column in COLUMNS if column.source in {None, source} and column.since <= written)


class Row(NamedTuple):
    """One request. `objective_us` counts: the timeout when it failed, else the kernel's time, else the probe's.

    `first_byte_us`: where it is not known, `objective_us`; None when the CSV has no such column. `label`: the class of
    a live request, else empty.
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
    first_byte_us: int | None = None


def wrong(line: int, field: str, text: str) -> ValueError:
    """The complaint about one field of one line; line 1 is the header."""
    return ValueError(f"CSV line {line}, {field}: {text}")


def read_rows(csv_text: str, timeout_us: int, *, live: bool = False) -> Iterator[Row]:
    """The rows in order, each checked by itself. Raises ValueError with line and field."""
    lines = csv_text.split("\n")
    columns = _read_header(lines[0], "live" if live else "probe")
    if lines.pop() != "":
        raise wrong(len(lines) + 1, "end", "the last line has no line end: the file is truncated")
    match = re.compile(",".join(f"({column.pattern})" for column in columns)).fullmatch
    began = any(column.name == "first_byte_us" for column in columns)
    for number, text in enumerate(lines[1:], 2):
        found = match(text)
        if found is None:
            raise _malformed(number, text, columns)
        pair, block, arm, seq, intended, lag, latency, kernel, status, size, conn, _, error, *last = found.groups()
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
        first = _first_byte(number, last[0], objective, failed=error != "") if began else None
        yield Row(
            number, int(pair), int(block), arm, int(seq), int(intended), int(lag), latency_us, kernel != "", objective,
            int(status), int(size), error, last[0] if live else "", first,
        )  # fmt: skip


def _first_byte(line: int, told: str, objective: int, *, failed: bool) -> int:
    if not told:
        return objective
    if failed:
        raise wrong(line, "first_byte_us", "a failed request counts as the timeout, whenever its answer began")
    if int(told) > objective:
        raise wrong(line, "first_byte_us", f"{told} is more than the whole request took, {objective}")
    return int(told)


def _read_header(header: str, source: Source) -> tuple[Column, ...]:
    for written in reversed(FORMATS):
        columns = columns_of(source, written)
        if header == _names(columns):
            return columns
    raise wrong(1, "header", f"expected {_names(columns_of(source))}, got {header[:120]!r}")


def _names(columns: Iterable[Column]) -> str:
    return ",".join(column.name for column in columns)


def check_columns(csv_text: str, metrics: Iterable[Metric]) -> None:
    """Raises ValueError when the agent that wrote the CSV was too old for one of the metrics."""
    header = csv_text.partition("\n")[0].split(",")
    for metric in metrics:
        column = METRICS[metric].column
        if column and column not in header:
            raise wrong(
                1,
                "header",
                f"no column {column}, which the objective {metric} is computed from: the host's agent was older than "
                "this objective; run playbooks/site.yml and measure again",
            )


def check_status(row: Row, expected: int) -> None:
    """Raises ValueError when status and error do not say the same of the answer."""
    if row.error in {"", "status"} and (row.status == expected) != (row.error == ""):
        raise wrong(row.line, "status", f"{row.status} with error {row.error!r}, where {expected} was asked for")


def _malformed(number: int, text: str, columns: tuple[Column, ...]) -> ValueError:
    fields = text.split(",")
    if len(fields) != len(columns):
        return wrong(number, "columns", f"expected {len(columns)} columns, got {len(fields)}: {text[:120]!r}")
    for column, value in zip(columns, fields, strict=True):
        if not re.fullmatch(column.pattern, value):
            return wrong(number, column.name, f"{value[:40]!r} is not what docs/csv.md allows")
    raise AssertionError("unreachable: a row whose every field matches is well formed")
