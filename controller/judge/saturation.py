"""The rows of a saturation: a closed loop, whose requests are as many as nginx answered (docs/csv.md).

Nothing says how many rows a block must have; what is checked is that they stand in the order of sending, that the arms
took their turns as drawn, and that the figures follow. That none is missing at the end is the hash's to show.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from controller.judge.rows import Row, check_status, read_rows, wrong
from controller.judge.schedule import draw_slots
from controller.judge.sidecar import ProbeSidecar


def saturated_blocks(csv_text: str, told: ProbeSidecar) -> list[list[Row]]:
    """The rows of each block. Raises ValueError at the first row that is out of place."""
    groups: list[list[Row]] = []
    pairs = itertools.groupby(read_rows(csv_text, told.timeout_us), key=lambda row: row.pair)
    for expected, (number, found) in enumerate(pairs, 1):
        rows = list(found)
        if number != expected or expected > len(told.pairs):
            raise wrong(rows[0].line, "pair", f"{number}, where {expected} of {len(told.pairs)} was due")
        two = _two_blocks(rows, told)
        if told.spec.at_once:
            _check_turns(rows, told)
        elif [row.block for row in rows] != sorted(row.block for row in rows):
            raise wrong(rows[0].line, "block", "the two blocks of a switchback follow each other")
        # A switchback may stop between the two blocks of a pair.
        if not all(two) and (told.spec.at_once or not two[0]):
            raise wrong(rows[-1].line, "block", f"pair {number} has no rows of one of its blocks")
        if groups and len(groups) % 2:
            raise wrong(rows[0].line, "pair", "a pair after one that is not whole")
        groups += [rows for rows in two if rows]
    for rows in groups:
        if all(row.intended_us < 0 for row in rows):
            raise wrong(rows[-1].line, "intended_us", "the block has nothing but its burn-in")
    return groups


def _two_blocks(rows: Sequence[Row], told: ProbeSidecar) -> tuple[list[Row], list[Row]]:
    """The rows of a pair by block, each checked against its place."""
    two: tuple[list[Row], list[Row]] = ([], [])
    letters = [arm[0] for arm in told.pairs[rows[0].pair - 1]]
    latest: dict[int, int] = {}
    for row in rows:
        place = row.block - (2 * row.pair - 1)
        if place not in (0, 1):
            raise wrong(row.line, "block", f"{row.block} is no block of pair {row.pair}")
        if row.arm != letters[place]:
            raise wrong(row.line, "arm", f"{row.arm}, where the schedule has {letters[place]}")
        if row.seq != len(two[place]):
            raise wrong(row.line, "seq", f"{row.seq}, where {len(two[place])} was due: missing, doubled or moved rows")
        # In a duet both blocks have one start.
        clock = 0 if told.spec.at_once else place
        if row.intended_us < latest.get(clock, row.intended_us):
            raise wrong(row.line, "intended_us", f"{row.intended_us}, earlier than the row before it")
        latest[clock] = row.intended_us
        check_status(row, told.expected_status(row.pair, row.seq))
        two[place].append(row)
    return two


def _check_turns(rows: Sequence[Row], told: ProbeSidecar) -> None:
    """The arms of a duet took turns in the order that is drawn; two turns running of one arm look like one."""
    slots = itertools.islice(draw_slots(told.schedule.seed, told.trial, told.host, rows[0].pair), told.slots)
    drawn = [place for b_first in slots for place in (int(b_first), 1 - int(b_first))]
    wanted = [place for place, _ in itertools.groupby(drawn)]
    found = [block - (2 * rows[0].pair - 1) for block, _ in itertools.groupby(row.block for row in rows)]
    if found != wanted:
        raise wrong(
            rows[0].line, "block", f"pair {rows[0].pair} did not take its turns in the order that the seed gives"
        )


def answered_rates(groups: Sequence[Sequence[Row]]) -> list[float]:
    """Requests answered a second of each of the blocks that took turns; `groups` hold the rows that count.

    A turn, a run of one block's rows in the order of sending, lasts from its first request to its last answer. A
    failed request is not counted, and lasts its timeout.
    """
    answered, busy = [0] * len(groups), [0] * len(groups)
    sent = sorted(
        (row.intended_us, place, number) for place, rows in enumerate(groups) for number, row in enumerate(rows)
    )
    for place, turn in itertools.groupby(sent, key=lambda each: each[1]):
        rows = [groups[place][number] for _, _, number in turn]
        answered[place] += sum(row.error == "" for row in rows)
        busy[place] += max(row.intended_us + row.latency_us for row in rows) - rows[0].intended_us
    return [1e6 * requests / max(1, microseconds) for requests, microseconds in zip(answered, busy, strict=True)]
