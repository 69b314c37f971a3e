"""The rows of a saturation are checked and recomputed; a second implementation of docs/csv.md builds them."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from controller.judge.figures import UNTOLD
from controller.judge.gain import gain
from controller.judge.summary import recompute
from tests.unit.judge.judge_csvs import CONFIGURATIONS, HEADER, build, sealed
from tests.unit.judge.judge_trials import pair as blocks_of

CONNECTIONS = 2
COST_US = {"control": 2000, "variant": 1000}


def _b_first(pair: int, slot: int) -> int:
    digest = hashlib.sha256(f"7/h1/3/{pair}/slots/0".encode()).digest()
    return digest[slot // 8] >> (slot % 8) & 1


def saturated(*, design: str = "duet", pairs: int = 2, failing: bool = False) -> tuple[str, dict[str, Any]]:
    """(csv text, sidecar) of turns of 20 requests, two under way at a time, of which each takes its arm's cost."""
    draw = random.Random(3)
    _, sidecar = build(design=design, pairs=1, planned=pairs, block_seconds=0.4, mode="saturation")
    sidecar = copy.deepcopy(sidecar)
    orders = sidecar["schedule"]["pairs"]
    cycle, offsets = sidecar["schedule"]["mix"]["cycle"], sidecar["schedule"]["mix"]["offsets"]
    template = sidecar["blocks"][0] | {"paired_gain": None}
    lines, blocks = [HEADER], []
    for pair in range(1, pairs + 1):
        seqs = [0, 0]
        # Two slots that count after one of burn-in; a switchback has one turn of each in either block.
        if design == "duet":
            turns = [(slot, place) for slot in range(3) for place in (_b_first(pair, slot), 1 - _b_first(pair, slot))]
        else:
            turns = [(slot, place) for place in (0, 1) for slot in range(2)]
        clock = -10_000
        rows: list[list[Any]] = []
        for slot, place in turns:
            if design == "switchback" and slot == 0:
                clock = -10_000
            if slot == 1 and clock < 0:
                clock = 0
            cost = COST_US[orders[pair - 1][place]]
            for number in range(4 if slot == 0 else 20):
                intended = clock + number // CONNECTIONS * cost
                expected = 404 if cycle[(offsets[pair - 1] + seqs[place]) % 3] else 200
                error = failing and slot == 2 and number == 19 and place == 0
                latency = 50_000 if error else cost - draw.randint(1, 9)
                rows.append([pair, 2 * pair - 1 + place, orders[pair - 1][place][0], seqs[place], intended, 0, latency,
                             "", 0 if error else expected, 100, 1, 1, "timeout" if error else ""])  # fmt: skip
                seqs[place] += 1
            clock += (2 if slot == 0 else 10) * cost
        lines += [",".join(map(str, row)) + "," * (HEADER.count(",") - 12) for row in rows]
        rates = _rates([row for row in rows if row[4] >= 0])
        for place in (0, 1):
            mine = [row for row in rows if row[4] >= 0 and row[1] == 2 * pair - 1 + place]
            latencies = sorted(row[6] for row in mine)
            statuses: dict[str, int] = {}
            for row in mine:
                if row[8]:
                    statuses[str(row[8])] = statuses.get(str(row[8]), 0) + 1
            errors = sum(row[12] != "" for row in mine)
            rank = {p: latencies[-(-len(latencies) * p // 100) - 1] for p in (50, 90, 95, 99)}
            arm = orders[pair - 1][place]
            blocks.append(
                template
                | {f"p{p}_us": value for p, value in rank.items()}
                | {
                    "pair": pair,
                    "block": 2 * pair - 1 + place,
                    "arm": arm,
                    "configuration": CONFIGURATIONS[arm],
                    "requests": len(mine),
                    "errors": errors,
                    "error_classes": {"timeout": errors} if errors else {},
                    "statuses": statuses,
                    "mean_us": round(sum(latencies) / len(mine), 1),
                    **UNTOLD,
                    "user_p99_us": rank[99],
                    "lag_p99_us": 0,
                    "bytes": 100 * len(mine),
                    "achieved_rate": rates[place],
                    "probe_busy_share": 0.1,
                    "valid": True,
                    "invalid_reason": "",
                }
            )
    text = "\n".join(lines) + "\n"
    return text, sidecar | {"blocks": blocks, "csv": sealed(text)}


def _rates(rows: list[list[Any]]) -> list[float]:
    """Answers over the time of the runs of one block's rows."""
    answered, busy, run = [0, 0], [0, 0], []
    for row in [*rows, None]:
        if run and (row is None or row[1] != run[0][1]):
            place = 1 - run[0][1] % 2
            answered[place] += sum(each[12] == "" for each in run)
            busy[place] += max(each[4] + each[6] for each in run) - run[0][4]
            run = []
        if row is not None:
            run.append(row)
    return [round(1e6 * count / time, 2) for count, time in zip(answered, busy, strict=True)]


@pytest.mark.parametrize("design", ["duet", "switchback"])
@pytest.mark.parametrize("failing", [False, True])
def test_every_block_is_recomputed_from_its_rows(design: str, failing: bool) -> None:
    text, sidecar = saturated(design=design, failing=failing)
    blocks = recompute(text, sidecar)
    assert [block.achieved_rate for block in blocks] == [block["achieved_rate"] for block in sidecar["blocks"]]


def test_half_the_cost_is_twice_the_throughput() -> None:
    text, sidecar = saturated()
    rates = {block.arm: block.achieved_rate for block in recompute(text, sidecar)}
    assert rates["variant"] == pytest.approx(2 * rates["control"], rel=0.01)


def test_a_failed_request_is_no_answer_and_lasts_its_timeout() -> None:
    whole, failed = (recompute(*saturated(failing=failing))[0].achieved_rate for failing in (False, True))
    assert failed < 0.8 * whole


def test_more_requests_a_second_are_a_gain() -> None:
    told = blocks_of(1, control={"achieved_rate": 100.0}, variant={"achieved_rate": 125.0})
    assert gain(told, "throughput", "duet") == pytest.approx(0.2231, abs=1e-4)


def _line(number: int, change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        lines = text.split("\n")
        lines[number] = ",".join(change(lines[number].split(",")))
        return "\n".join(lines)

    return changed


def _without(first: int, last: int) -> Callable[[str], str]:
    def shortened(text: str) -> str:
        lines = text.split("\n")
        return "\n".join(lines[:first] + lines[last:])

    return shortened


DAMAGE: dict[str, Callable[[str], str]] = {
    "a row is missing": _without(30, 31),
    "rows changed places": lambda text: "\n".join(
        [*(lines := text.split("\n"))[:30], lines[31], lines[30], *lines[32:]]
    ),
    "a row of another arm": _line(12, lambda row: [*row[:2], "cv".replace(row[2], ""), *row[3:]]),
    "a row of another pair": _line(12, lambda row: ["3", *row[1:]]),
    "a row of no block of its pair": _line(12, lambda row: [row[0], "9", *row[2:]]),
    "a request sent before the one before it": _line(30, lambda row: [*row[:4], "1", *row[5:]]),
    "an answer that took another time": _line(30, lambda row: [*row[:6], "7", *row[7:]]),
    "an answer with another status": _line(30, lambda row: [*row[:8], "500", *row[9:]]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_rows_are_refused_although_hash_and_counts_fit(damage: str) -> None:
    text, sidecar = saturated()
    text = DAMAGE[damage](text)
    with pytest.raises(ValueError, match=r"CSV line|block \d"):
        recompute(text, sidecar | {"csv": sealed(text)})


def test_turns_that_were_not_drawn_are_refused() -> None:
    text, sidecar = saturated()
    sidecar["schedule"]["burn_in_seconds"] = 0.0
    with pytest.raises(ValueError, match="did not take its turns in the order that the seed gives"):
        recompute(text, sidecar)


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"probe_busy_share": None}, "must tell how busy the probe was"),
        ({"probe_busy_share": 0.6}, "called valid"),
        ({"valid": False, "invalid_reason": "no"}, "called invalid"),
        ({"achieved_rate": 9999.0}, "achieved_rate"),
        ({"paired_gain": 0.5}, "paired_gain"),
    ],
)
def test_a_figure_that_the_rows_do_not_give_is_refused(told: dict[str, Any], complaint: str) -> None:
    text, sidecar = saturated()
    # With kernel stamps nothing excuses an invalid block.
    lines = text.split("\n")
    lines[1:-1] = [",".join([*(row := line.split(","))[:7], row[6], *row[8:]]) for line in lines[1:-1]]
    text = "\n".join(lines)
    sidecar["blocks"][1] |= told
    with pytest.raises(ValueError, match=complaint):
        recompute(text, sidecar | {"csv": sealed(text)})
