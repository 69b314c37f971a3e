"""When a response begins: from the request's last byte to the response's first, apart from all that is around it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.judge.summary import recompute
from controller.judge.verdict import Judge
from controller.model.blocks import Block
from controller.model.experiment import Experiment
from controller.model.trial import TrialPlan, TrialTiming
from controller.report.words import effect_words
from controller.workflow.trial import evidence
from ratchet_agent.exchange import NO_STAMP, Exchange
from ratchet_agent.plan_parsing import parse_plan
from ratchet_agent.rows import COLUMNS, Rows

MS = 1_000_000
# The real-time clock is ahead of the monotonic one by so much.
AHEAD_NS = 1_700_000_000_000 * MS


@pytest.fixture
def recorded(plan_of: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """The column first_byte_us of an exchange that was due at 10 ms, sent at 12 ms and read at 20 ms."""

    def record(**changes: Any) -> str:
        plan = parse_plan(json.dumps(plan_of(80)).encode())
        exchange = Exchange(0, plan.requests[0], 10 * MS)
        told = {"started_ns": 11 * MS, "sent_ns": 12 * MS, "first_ns": 16 * MS, "finished_ns": 20 * MS}
        stamps = {"first_stamp_ns": AHEAD_NS + 15 * MS, "stamp_ns": AHEAD_NS + 19 * MS}
        for name, value in (told | stamps | changes).items():
            setattr(exchange, name, value)
        rows = Rows(plan, 1, 1, "control")
        rows.record(exchange, 0, AHEAD_NS)
        return first_byte(rows)

    return record


def first_byte(rows: Rows) -> str:
    """The column of the first row."""
    return dict(zip(COLUMNS, rows.line(0).rstrip("\n").split(","), strict=True))["first_byte_us"]


def test_it_counts_from_the_last_byte_sent_to_the_kernels_stamp(recorded: Callable[..., str]) -> None:
    assert recorded() == "3000"


@pytest.mark.parametrize("stamp", [NO_STAMP, AHEAD_NS + 11 * MS, AHEAD_NS + 40 * MS])
def test_without_a_stamp_that_can_be_trusted_it_counts_to_the_first_read(
    stamp: int, recorded: Callable[..., str]
) -> None:
    assert recorded(first_stamp_ns=stamp) == "4000"


def test_a_response_that_began_before_its_request_was_sent_has_none(recorded: Callable[..., str]) -> None:
    assert recorded(sent_ns=17 * MS) == ""


def test_a_failed_request_has_none(recorded: Callable[..., str]) -> None:
    assert recorded(error="status") == ""


def test_a_clock_that_was_set_takes_it_away(plan_of: Callable[..., dict[str, Any]]) -> None:
    rows = Rows(parse_plan(json.dumps(plan_of(80)).encode()), 1, 1, "control")
    assert first_byte(rows) == "0"
    rows.forget_stamps()
    assert first_byte(rows) == ""


@pytest.mark.measures
def test_a_slow_body_is_not_in_it_and_a_slow_head_is(bare_laboratory: Any, plan_of: Any, raw_server: Any) -> None:
    """30 ms to the head, 40 more to the body, on connections that close: most requests are sent a second time."""

    def slow(connection: Any) -> None:
        connection.recv(4096)
        time.sleep(0.03)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.04)
        connection.sendall(b"ok")
        connection.recv(4096)

    blocks = bare_laboratory.blocks(plan_of(raw_server(slow).port, block_seconds=1, workload={"rate": 10}))
    evidence = bare_laboratory.evidence()
    assert "2" in {row["reused"] for row in evidence.rows}
    for block in blocks:
        assert 30_000 <= block["ttfb_p50_us"] < 39_000
        assert block["p50_us"] >= block["ttfb_p50_us"] + 39_000
    assert [
        block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar, ["ttfb_p50"])
    ] == blocks


@pytest.mark.measures
def test_a_handshake_is_not_in_it(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    workload = {"scheme": "https", "connections": "fresh", "rate": 100}
    blocks = laboratory.blocks(plan_of(nginx.tls, workload=workload))
    rows = laboratory.evidence().counted()
    assert all(row["first_byte_us"] for row in rows)
    assert all(block["ttfb_p50_us"] < 0.8 * block["p50_us"] for block in blocks)


@pytest.mark.measures
def test_a_variant_that_begins_its_responses_sooner_is_kept_and_its_csv_gives_the_same_verdict(
    laboratory: Any, nginx: Any, plan_of: Any, tmp_path: Path
) -> None:
    asked = plan_of(
        nginx.port,
        design="duet",
        pairs=16,
        arms={"control": "heavy", "variant": "light"},
        workload={"requests": [{"path": "/data.json", "headers": {"Accept-Encoding": "gzip"}}], "rate": 40},
    )
    plan = _trial(asked)
    judge = Judge(plan)
    judgement = None
    blocks = [Block.model_validate(block) for block in laboratory.blocks(asked)]
    for pair in evidence.pairs_in_order({asked["host"]: blocks}, [asked["host"]] * 16):
        if not judge.decided:
            judgement = judge.add(pair)
    assert judgement is not None
    assert (judgement.action, judgement.reason) == ("keep", "proven-gain"), judgement.note
    assert effect_words(judgement.confirmed_effect, "ttfb_p50").startswith("ttfb_p50 ")
    shutil.copy(laboratory.root / "r-1/1.csv.gz", tmp_path / f"{asked['host']}.csv.gz")
    shutil.copy(laboratory.root / "r-1/1.json", tmp_path / f"{asked['host']}.json")
    again, _ = evidence.judge_again(plan, tmp_path, [asked["host"]] * judgement.pairs, None)
    assert again == judgement


def _trial(asked: dict[str, Any]) -> TrialPlan:
    """The agent's plan as a trial that is judged by its time to first byte."""
    experiment = Experiment.model_validate(
        {
            "name": "gzip",
            "question": "Does a lower level begin to answer sooner?",
            "why": "It has less to search.",
            "risk": {"level": "low", "note": "none"},
            "sources": ["a hunch"],
            "variants": [{"name": "light", "parameters": {"nginx_gzip_comp_level": 1}}],
            "workload": asked["workload"],
            "objective": {"metric": "ttfb_p50"},
        }
    )
    return TrialPlan(
        number=asked["trial"],
        experiment=experiment,
        variant=experiment.variants[0],
        design="duet",
        timing=TrialTiming.of(experiment.timing, "duet"),
        hosts=[asked["host"]],
        seed=asked["seed"],
        alpha=0.05,
        variants_in_run=1,
        control_ids={asked["host"]: asked["arms"]["control"]},
        variant_ids={asked["host"]: asked["arms"]["variant"]},
    )
