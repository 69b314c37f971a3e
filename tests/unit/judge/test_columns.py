"""Agent and controller share no code: each lists a CSV's columns, and the figures that only some blocks tell."""

from __future__ import annotations

from controller.judge.figures import UNTOLD
from controller.judge.rows import FORMATS, columns_of
from controller.model.blocks import Block
from controller.model.metrics import METRICS
from ratchet_agent import rows, summary


def names(*columns: object) -> tuple[str, ...]:
    return tuple(column.name for column in columns_of(*columns))  # type: ignore[arg-type]


def test_the_agent_writes_the_columns_that_the_controller_reads():
    assert names("probe") == rows.COLUMNS
    assert names("live") == rows.LIVE_COLUMNS
    assert FORMATS[-1] == rows.FORMAT


def test_the_columns_of_the_first_format_stay_what_they_were():
    first = "pair,block,arm,seq,intended_us,lag_us,latency_us,kernel_us,status,bytes,conn,reused,error"
    assert ",".join(names("probe", 1)) == first
    assert ",".join(names("live", 1)) == f"{first},class"


def test_what_only_a_steady_probe_tells_is_the_same_on_both_sides_and_may_be_missing_in_a_block():
    assert summary.UNTOLD == UNTOLD
    assert all(Block.model_fields[name].default is None for name in UNTOLD)


def test_a_metric_names_a_column_that_there_is():
    known = {column for source in ("probe", "live") for column in names(source)}
    assert {metric.column for metric in METRICS.values()} - {""} <= known
