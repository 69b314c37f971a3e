"""Recompute the blocks of a trial from its rows: what anyone can repeat with docs/csv.md in hand.

Nothing is repaired. Whatever is missing, doubled, out of order, edited or at odds with the sidecar is a ValueError, and
the trial counts for nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from controller.judge.figures import STEADY_FIGURES, UNTOLD, check_ran, compare, figures, nearest_rank
from controller.judge.live_rows import recompute_live
from controller.judge.rows import Row, check_columns, check_status, read_rows, wrong
from controller.judge.saturation import answered_rates, saturated_blocks
from controller.judge.schedule import draw_slots
from controller.judge.sidecar import LiveSidecar, ProbeSidecar, Sidecar, read_sidecar
from controller.model.blocks import Arm, Block
from controller.model.metrics import Metric

_LETTERS: dict[Arm, str] = {"control": "c", "variant": "v"}
# A block starts at a whole microsecond of no clock: due times may be rounded either way.
_ROUNDING_US = 1.0


def recompute(csv_text: str, sidecar: object, metrics: Iterable[Metric] = ()) -> list[Block]:
    """Every block of one host and trial, in order of its number, recomputed from the rows.

    Side metrics, body hashes, times of day and the switch are the sidecar's: rows do not hold them.

    Args:
        csv_text: the uncompressed CSV.
        sidecar: its parsed JSON sidecar.
        metrics: what the trial is to be judged by; an older agent's rows may not tell it.

    Raises:
        ValueError: the evidence is damaged; the text names the CSV's line and field, or the sidecar's field.
    """
    told = read_sidecar(sidecar)
    check_columns(csv_text, metrics)
    if isinstance(told, LiveSidecar):
        blocks, rows = recompute_live(csv_text, told)
        _check_whole(csv_text, rows, told)
        return blocks
    groups = saturated_blocks(csv_text, told) if told.saturation else _by_block(csv_text, told)
    if len(groups) != len(told.blocks):
        raise ValueError(f"sidecar.blocks: {len(told.blocks)} blocks, but the CSV has {len(groups)}")
    blocks = [_check_block(block, group, told) for block, group in zip(told.blocks, groups, strict=True)]
    width = told.spec.blocks_of_a_pair
    for index in range(0, len(blocks), width):
        _check_pair(blocks[index : index + width], groups[index : index + width], told)
    _check_whole(csv_text, sum(map(len, groups)), told)
    return blocks


def _check_whole(csv_text: str, rows: int, told: Sidecar) -> None:
    raw = csv_text.encode("utf-8", errors="surrogatepass")
    for name, recorded, found in (
        ("rows", told.csv.rows, rows),
        ("bytes", told.csv.bytes, len(raw)),
        ("sha256", told.csv.sha256, hashlib.sha256(raw).hexdigest()),
    ):
        if recorded != found:
            raise ValueError(f"sidecar.csv.{name}: {recorded}, but the CSV has {found}")


# --- rows into blocks, in exactly the order of the schedule -----------------------------------------------------------


def _by_block(csv_text: str, told: ProbeSidecar) -> list[list[Row]]:
    """The rows of each block. Raises ValueError at the first row that is not the next one of the schedule."""
    rows = read_rows(csv_text, told.timeout_us)
    groups: list[list[Row]] = []
    for pair, order in enumerate(told.pairs, 1):
        of_pair: list[list[Row]] = [[] for _ in order]
        before = told.spec.blocks_of_a_pair * (pair - 1)
        end = 1
        for place, seq, due_us in _duet_places(told, pair) if told.spec.at_once else _places_in_turn(told):
            row = next(rows, None)
            if row is None:
                # Blocks that come in turn may end between two of a pair.
                if seq == 0 and (not told.spec.at_once or not any(of_pair)):
                    break
                raise wrong(end + 1, "seq", f"the CSV ends within block {before + place + 1}: it is truncated")
            _check_place(row, pair=pair, block=before + place + 1, arm=order[place], seq=seq, due_us=due_us)
            check_status(row, told.expected_status(row.pair, row.seq))
            of_pair[place].append(row)
            end = row.line
        groups.extend(group for group in of_pair if group)
        if not all(of_pair):
            break
    extra = next(rows, None)
    if extra is not None:
        raise wrong(extra.line, "pair", "a row after the last one of the schedule")
    return groups


def _places_in_turn(told: ProbeSidecar) -> Iterator[tuple[int, int, float]]:
    """(place of the block in its pair, seq, when due in microseconds) of a pair's rows, in order."""
    burn_in, counted, interval_ns = told.burn_in, told.counted, told.schedule.interval_ns
    for place in range(told.spec.blocks_of_a_pair):
        for seq in range(burn_in + counted):
            yield place, seq, (seq - burn_in) * interval_ns / 1000


def _duet_places(told: ProbeSidecar, pair: int) -> Iterator[tuple[int, int, float]]:
    burn_in, counted, interval_ns = told.burn_in, told.counted, told.schedule.interval_ns
    slots = draw_slots(told.schedule.seed, told.trial, told.host, pair)
    for seq, b_first in zip(range(burn_in + counted), slots, strict=False):
        due_us = (seq - burn_in) * interval_ns / 1000
        yield int(b_first), seq, due_us
        yield 1 - int(b_first), seq, due_us + interval_ns / 2000


def _check_place(row: Row, *, pair: int, block: int, arm: Arm, seq: int, due_us: float) -> None:
    for field, found, expected in (
        ("pair", row.pair, pair),
        ("block", row.block, block),
        ("arm", row.arm, _LETTERS[arm]),
        ("seq", row.seq, seq),
    ):
        if found != expected:
            raise wrong(row.line, field, f"{found}, where the schedule has {expected}: missing, doubled or moved rows")
    if abs(row.intended_us - due_us) > _ROUNDING_US:
        raise wrong(
            row.line, "intended_us", f"{row.intended_us}, but request {seq} of the block was due at {due_us:.1f}"
        )
    if (row.intended_us < 0) != (due_us < 0):
        raise wrong(row.line, "intended_us", f"{row.intended_us} is on the wrong side of the burn-in's end")


# --- a block's figures ------------------------------------------------------------------------------------------------


def _check_block(block: Block, rows: Sequence[Row], told: ProbeSidecar) -> Block:
    """The sidecar's block, once every figure that rows give is what it says."""
    counted = [row for row in rows if row.intended_us >= 0]
    place = f"block {rows[0].block}"
    arm: Arm = "control" if rows[0].arm == "c" else "variant"
    computed: dict[str, object] = {
        "pair": rows[0].pair,
        "block": rows[0].block,
        "arm": arm,
        "configuration": told.configuration(arm),
        **figures(counted),
        "classes": {},
    }
    if told.saturation:
        computed |= UNTOLD
    else:
        asked = [told.request(row.pair, row.seq) for row in counted]
        steady = {name: figure(counted, asked) for name, figure in STEADY_FIGURES.items()}
        # Earlier agents did not tell each of them; what is not told is never a gain.
        computed |= {name: value for name, value in steady.items() if getattr(block, name) is not None}
    if not told.spec.at_once and not told.saturation:
        computed |= {"achieved_rate": round(_achieved(counted, told.rate), 2), "paired_gain": None}
    compare(block, computed, place)
    return block


def _achieved(rows: Sequence[Row], rate: float, *, arms: int = 1) -> float:
    """Requests a second and arm that the probe really took up, over the rows of `arms` blocks that ran at once."""
    first = min(row.intended_us for row in rows)
    last = max(row.intended_us + row.lag_us for row in rows)
    share = 1_000_000 // arms
    return len(rows) * share / (last - first + share / rate)


def paired_gain(control: Sequence[Row], variant: Sequence[Row]) -> float:
    """The median of ln(control / variant) over a duet's slots, to six decimals; the rows stand in order of `seq`."""
    ratios = sorted(
        math.log(max(c.objective_us, 1) / max(v.objective_us, 1)) for c, v in zip(control, variant, strict=True)
    )
    middle = len(ratios) // 2
    median = ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2
    return round(median, 6)


def _check_pair(blocks: Sequence[Block], groups: Sequence[Sequence[Row]], told: ProbeSidecar) -> None:
    """What the two blocks of a pair have together, and whether each was rightly called valid."""
    counted = [[row for row in rows if row.intended_us >= 0] for rows in groups]
    rate = told.rate
    if told.saturation:
        _check_saturated(blocks, groups, counted, told)
        return
    if told.spec.at_once:
        arms = dict(zip((block.arm for block in blocks), counted, strict=True))
        both = list(itertools.chain.from_iterable(counted))
        achieved = [_achieved(both, rate, arms=2)] * 2
        together = {
            "paired_gain": paired_gain(arms["control"], arms["variant"]),
            "achieved_rate": round(achieved[0], 2),
        }
        for block in blocks:
            compare(block, together, f"block {block.block}")
    else:
        achieved = [_achieved(rows, rate) for rows in counted]
    for block, kept, all_rows, rows in zip(blocks, achieved, groups, counted, strict=True):
        _check_validity(block, kept, all_rows, rows, told)


def _check_saturated(
    blocks: Sequence[Block], groups: Sequence[Sequence[Row]], counted: Sequence[Sequence[Row]], told: ProbeSidecar
) -> None:
    """The rates of blocks that took turns; those of a switchback stand each for itself."""
    together = told.spec.at_once
    rates = answered_rates(counted) if together else [answered_rates([rows])[0] for rows in counted]
    for block, rate, rows in zip(blocks, rates, groups, strict=True):
        place = f"block {block.block}"
        compare(block, {"achieved_rate": round(rate, 2), "paired_gain": None}, place)
        share = block.probe_busy_share
        if share is None or not 0 <= share < math.inf:
            raise ValueError(f"{place}, probe_busy_share: a saturation must tell how busy the probe was, not {share}")
        local = any(row.error == "local" for row in rows if row.intended_us >= 0)
        _check_called(block, broken=share > told.limits.probe_busy_share or local, all_rows=rows)


def _check_validity(
    block: Block, achieved: float, all_rows: Sequence[Row], rows: Sequence[Row], told: ProbeSidecar
) -> None:
    """A block that broke the rules may not count, and one that kept them may not be left out."""
    local = any(row.error == "local" for row in rows)
    late = nearest_rank(sorted(row.lag_us for row in rows), 95) > told.schedule.lag_limit_us
    broken = achieved < told.limits.rate_kept * told.rate or late or local
    _check_called(block, broken=broken, all_rows=all_rows)


def _check_called(block: Block, *, broken: bool, all_rows: Sequence[Row]) -> None:
    if block.valid and broken:
        raise ValueError(
            f"block {block.block}: called valid, but its rows show that the probe did not keep its schedule"
        )
    check_ran(block)
    # The one reason that rows do not show is a clock that was set: such a block has no kernel stamps at all.
    excused = not any(row.stamped for row in all_rows) or any(row.error == "local" for row in all_rows)
    if not block.valid and not broken and not excused and not block.astray:
        raise ValueError(f"block {block.block}: called invalid ({block.invalid_reason}), but its rows keep every rule")
