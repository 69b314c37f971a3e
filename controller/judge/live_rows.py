"""Recompute the blocks of live traffic from their CSV, as strictly as no schedule of requests allows (docs/csv.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.judge.figures import UNTOLD, check_ran, compare, figures, latency_figures
from controller.judge.rows import Row, read_rows, wrong
from controller.judge.sidecar import LiveSidecar
from controller.model.blocks import Arm, Block

_MILLISECOND_US = 1000
# Why a block may be invalid although its rows keep every rule: rows do not show it.
_BELIEVED = ("the host's clock was set", "the live log")


def recompute_live(csv_text: str, told: LiveSidecar) -> tuple[list[Block], int]:
    """(every block in order of its number, number of rows). Raises ValueError as `recompute` does."""
    if len(told.blocks) > 2 * len(told.pairs):
        raise ValueError(f"sidecar.blocks: {len(told.blocks)} blocks, but {len(told.pairs)} pairs were planned")
    groups: list[list[Row]] = [[] for _ in told.blocks]
    for row in _in_order(csv_text, told):
        groups[row.block - 1].append(row)
    for number, (block, rows) in enumerate(zip(told.blocks, groups, strict=True), 1):
        _check_block(block, number, rows, told)
    return told.blocks, sum(map(len, groups))


def _in_order(csv_text: str, told: LiveSidecar) -> Iterator[Row]:
    """The rows, each where it may stand."""
    first_us = -round(told.schedule.burn_in_seconds * 1000) * _MILLISECOND_US
    end_us = round(told.schedule.block_seconds * 1000) * _MILLISECOND_US
    block, seq, since = 0, 0, first_us
    for row in read_rows(csv_text, told.timeout_us, live=True):
        if row.block != block:
            if not block < row.block <= len(told.blocks):
                raise wrong(row.line, "block", f"{row.block} after {block}, of {len(told.blocks)} blocks")
            block, seq, since = row.block, 0, first_us
        arm = _arm(told, block)
        for field, found, expected in (
            ("pair", row.pair, (block + 1) // 2),
            ("arm", row.arm, arm[0]),
            ("seq", row.seq, seq),
            ("lag_us", row.lag_us, 0),
            ("kernel_us", row.stamped, False),
            ("error", row.error, _error(row, told.timeout_us)),
        ):
            if found != expected:
                raise wrong(
                    row.line, field, f"{found!r}, expected {expected!r}: missing, doubled, moved or edited rows"
                )
        if not since <= row.intended_us < end_us:
            raise wrong(row.line, "intended_us", f"{row.intended_us} is before the row above, or outside of the block")
        if row.intended_us % _MILLISECOND_US or (not row.error and row.latency_us % _MILLISECOND_US):
            raise wrong(row.line, "latency_us", "not whole milliseconds, which is all that nginx's log tells")
        seq, since = seq + 1, row.intended_us
        yield row


def _arm(told: LiveSidecar, block: int) -> Arm:
    return told.pairs[(block - 1) // 2][(block - 1) % 2]


def _error(row: Row, timeout_us: int) -> str:
    """What the row's error must be; a timeout is believed, since its own time gave way to the timeout's."""
    if row.error == "timeout" and row.latency_us == timeout_us:
        return "timeout"
    if row.status == 0:
        return "eof"
    return "status" if row.status >= 500 else ""


def _check_block(block: Block, number: int, rows: Sequence[Row], told: LiveSidecar) -> None:
    counted = [row for row in rows if row.intended_us >= 0]
    classes: dict[str, list[int]] = {}
    for row in counted:
        classes.setdefault(row.label, []).append(row.objective_us)
    arm = _arm(told, number)
    computed: dict[str, object] = {
        "pair": (number + 1) // 2,
        "block": number,
        "arm": arm,
        "configuration": told.configuration(arm),
        **figures(counted),
        "achieved_rate": round(len(counted) / told.schedule.block_seconds, 2),
        "paired_gain": None,
        **UNTOLD,
    }
    compare(block, computed, f"block {number}")
    told_classes = {label: each.model_dump() for label, each in block.classes.items()}
    if told_classes != {label: latency_figures(took) for label, took in classes.items()}:
        raise ValueError(f"block {number}, classes: the sidecar says other figures than the rows give")
    few = len(counted) < told.schedule.minimum_requests
    if block.valid and few:
        raise ValueError(
            f"block {number}: called valid with {len(counted)} of {told.schedule.minimum_requests} requests"
        )
    check_ran(block)
    believed = block.astray or any(reason in block.invalid_reason for reason in _BELIEVED)
    if not block.valid and not few and not believed:
        raise ValueError(f"block {number}: called invalid ({block.invalid_reason}), but its rows keep every rule")
