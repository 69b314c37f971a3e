"""Saturation: a closed loop in turns, against a real nginx; its rates are recomputed from the rows."""

from __future__ import annotations

import itertools
import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.judge.figures import nearest_rank
from controller.judge.summary import recompute
from ratchet_agent.plan_parsing import parse_plan
from ratchet_agent.rows import Rows
from ratchet_agent.summary import nearest_ranks, saturated_rates, summarise
from ratchet_agent.trial import lines_in_due_order

pytestmark = pytest.mark.measures

EXPENSIVE = {
    "mode": "saturation",
    "connections_open": 4,
    "requests": [{"path": "/data.json", "headers": {"Accept-Encoding": "gzip"}}],
    "timeout_ms": 5000,
}


@pytest.mark.parametrize("design", ["switchback", "duet"])
def test_the_judge_recomputes_exactly_the_rates_that_came_live(
    design: str, laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    arms = {"control": "heavy", "variant": "light"}
    live = laboratory.blocks(plan_of(nginx.port, design=design, arms=arms, pairs=2, workload=EXPENSIVE))
    evidence = laboratory.evidence()
    assert [block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar)] == live
    assert all(block["valid"] and block["paired_gain"] is None for block in live)
    assert all(0 < block["probe_busy_share"] < 0.5 for block in live)


@pytest.mark.parametrize("design", ["switchback", "duet"])
def test_the_arm_that_costs_more_is_answered_less_often(design: str, laboratory: Any, nginx: Any, plan_of: Any) -> None:
    arms = {"control": "heavy", "variant": "light"}
    blocks = laboratory.blocks(plan_of(nginx.port, design=design, arms=arms, block_seconds=1, workload=EXPENSIVE))
    rates = {block["arm"]: block["achieved_rate"] for block in blocks}
    assert rates["variant"] > 1.5 * rates["control"]


def test_as_many_requests_are_under_way_as_connections_are_open(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    laboratory.blocks(plan_of(nginx.port, design="duet", workload=EXPENSIVE))
    for arm in "cv":
        spans = [
            (int(row["intended_us"]), int(row["intended_us"]) + int(row["latency_us"]))
            for row in laboratory.evidence().counted(arm)
        ]
        under_way = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
        assert max(under_way) == EXPENSIVE["connections_open"]


def test_the_arms_of_a_duet_never_ask_at_once(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    laboratory.blocks(plan_of(nginx.port, design="duet", block_seconds=1, workload=EXPENSIVE))
    turns = [
        [(int(row["intended_us"]), int(row["latency_us"])) for row in run]
        for _, run in itertools.groupby(laboratory.evidence().rows, key=lambda row: row["arm"])
    ]
    assert len(turns) >= 4
    for one, following in itertools.pairwise(turns):
        assert max(start + latency for start, latency in one) <= following[0][0]


def test_a_probe_that_would_measure_itself_makes_its_block_invalid(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    cheap = {"mode": "saturation", "connections_open": 32, "requests": [{"path": "/small.txt"}]}
    blocks = laboratory.blocks(plan_of(nginx.port, pairs=3, workload=cheap))
    evidence = laboratory.evidence()
    # How busy it is depends on who else wants the cores; that it is told, and judged alike on both sides, does not.
    for block in blocks:
        assert block["valid"] == (block["probe_busy_share"] <= 0.5)
        assert ("would measure itself" in block["invalid_reason"]) == (not block["valid"])
    assert max(block["probe_busy_share"] for block in blocks) > 0.2
    assert [block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar)] == blocks


def test_the_limit_of_the_probes_own_work_is_a_reason(plan_of: Any) -> None:
    plan = parse_plan(json.dumps(plan_of(80, workload=EXPENSIVE)).encode())
    rows = Rows(plan, 1, 1, "control")
    rows.burn_in = 0
    rows.extend()
    told = {
        share: summarise(rows, plan, itertools.repeat(0), achieved=9000.0, clock_set=False, probe_busy_share=share)[
            "valid"
        ]
        for share in (0.0, 0.5, 0.51)
    }
    assert told == {0.0: True, 0.5: True, 0.51: False}


def test_failures_are_no_answers_and_do_not_race_ahead(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    failing = {"mode": "saturation", "connections_open": 4, "requests": [{"path": "/missing"}]}
    blocks = laboratory.blocks(plan_of(nginx.port, workload=failing))
    evidence = laboratory.evidence()
    assert all(block["achieved_rate"] == 0 and block["errors"] == block["requests"] == 4 for block in blocks)
    assert [block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar)] == blocks


@given(st.lists(st.integers(0, 60), min_size=1, max_size=300))
def test_ranks_are_counted_as_they_would_be_sorted(values: list[int]) -> None:
    percents = (50, 90, 95, 99)
    assert nearest_ranks(values, *percents) == [nearest_rank(sorted(values), percent) for percent in percents]


def test_of_a_pairs_rows_little_more_is_held_than_the_rows(plan_of: Any) -> None:
    plan = parse_plan(json.dumps(plan_of(80, design="duet", workload=EXPENSIVE)).encode())
    blocks, count, draw = [], 50_000, random.Random(1)
    for position, arm in enumerate(("control", "variant")):
        rows = Rows(plan, 1, 1 + position, arm)
        rows.burn_in = 0
        for number in range(count):
            row = rows.extend()
            rows.intended[row] = 100 * number + 100_000 * (number // 1000 + position)
            rows.latency[row] = int(draw.lognormvariate(6, 1))
        blocks.append(rows)
    tracemalloc.start()
    for rows, rate in zip(blocks, saturated_rates(blocks), strict=True):
        summarise(rows, plan, itertools.repeat(0), achieved=rate, clock_set=False, probe_busy_share=0.1)
    arms = [arm for arm, _ in itertools.groupby(line.split(",")[2] for line in lines_in_due_order(plan, 1, blocks))]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A row itself takes 52 bytes.
    assert peak / (2 * count) < 26
    assert "".join(arms) == "cv" * 50
