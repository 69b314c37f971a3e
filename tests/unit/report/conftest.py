"""A run to render: gzip levels of which one is kept, one harmed the tail, one was refused by nginx."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from controller.judge.verdict import Judge
from controller.model.blocks import Arm, Block, SideMetrics
from controller.model.experiment import Experiment, Request, Risk, Variant, Workload
from controller.model.run import RunPlan, RunResult
from controller.model.trial import Effect, LiveCheck, Pair, TrialPlan, TrialResult, TrialTiming

HOSTS = ["lab-1", "lab-2", "lab-3"]
BEFORE, AFTER = "0123456789abcdef", "fedcba9876543210"


def example_experiment(**changes: object) -> Experiment:
    fields: dict[str, object] = {
        "name": "gzip-level",
        "question": "Does a lighter compression level answer sooner?",
        "why": "Level 9 spends several times the CPU of level 4 for a few per cent fewer bytes.",
        "risk": Risk(level="low", note="responses grow by a few per cent"),
        "sources": ["the documentation of ngx_http_gzip_module"],
        "variants": [
            Variant(name="level-4", parameters={"nginx_gzip_comp_level": 4}, why="zlib's knee"),
            Variant(name="level-1", parameters={"nginx_gzip_comp_level": 1}),
            Variant(name="level-6", parameters={"nginx_gzip_comp_level": 6, "nginx_gzip_types": ["text/css"]}),
        ],
        "workload": Workload(rate=100, requests=[Request(path="/api/items.json")]),
    }
    return Experiment.model_validate(fields | changes)


def example_plan(experiment: Experiment | None = None) -> RunPlan:
    experiment = experiment or example_experiment()
    return RunPlan(
        run_id="r-20261123-201500-3fa9",
        fleet="lab",
        seed=7,
        created_at="2026-11-23T20:15:00Z",
        ratchet_version="0.1.0",
        hosts=HOSTS,
        lease_seconds=60,
        alpha=0.05,
        trials=[
            TrialPlan(
                number=number,
                experiment=experiment,
                variant=variant,
                design="duet",
                timing=TrialTiming.of(experiment.timing, "duet"),
                hosts=HOSTS,
                seed=7,
                alpha=0.05,
                variants_in_run=len(experiment.variants),
            )
            for number, variant in enumerate(experiment.variants, 1)
        ],
    )


def example_block(pair: int, block: int, arm: Arm, p50: int, gain: float | None) -> Block:
    return Block(
        pair=pair,
        block=block,
        arm=arm,
        configuration=BEFORE if arm == "control" else AFTER,
        started_at=1_795_464_900.0 + pair,
        seconds=1.0,
        requests=100,
        errors=0,
        p50_us=p50,
        p90_us=p50 * 2,
        p95_us=p50 * 3,
        p99_us=p50 * 4,
        mean_us=float(p50),
        user_p99_us=p50 * 4 + 100,
        lag_p99_us=90,
        achieved_rate=100.0,
        bytes=1_000_000,
        paired_gain=gain,
        switch_seconds=0.1,
        valid=True,
        bodies={"GET /api/items.json": "aa"},
        metrics=SideMetrics(cpu_us_per_request=p50 * 0.8, rss_bytes=9_000_000, open_files=24),
    )


def example_pairs(mean_gain: float, count: int, *, spread: float = 0.03, seed: int = 1) -> list[Pair]:
    source = random.Random(seed)
    pairs = []
    for index in range(count):
        host, number = HOSTS[index % 3], index // 3 + 1
        gain = round(source.gauss(mean_gain, spread), 6)
        control = 9000 + int(source.gauss(0, 200))
        blocks = {"control": control, "variant": int(control / math.exp(gain))}
        made = {
            arm: example_block(number, 2 * number - 1 + place, arm, p50, gain)
            for place, (arm, p50) in enumerate(blocks.items())
        }
        pairs.append(Pair(host=host, number=number, control=made["control"], variant=made["variant"]))
    return pairs


def example_trial(number: int, variant: str, **fields: object) -> TrialResult:
    values: dict[str, object] = {
        "trial": number,
        "experiment": "gzip-level",
        "variant": variant,
        "hosts": HOSTS,
        "verdict": "REVERT",
        "reason": "undecided",
        "objective": "p50",
        "design": "duet",
        "effect": None,
        "confirmed_effect": None,
        "evidence": 0.0,
        "threshold": 100.0,
        "pairs": 0,
        "requests": 0,
        "errors": 0,
        "seconds": 12.0,
        "probing_seconds": 8.0,
    }
    return TrialResult.model_validate(values | fields)


def example_result(**changes: object) -> RunResult:
    trials = [
        example_trial(
            1,
            "level-4",
            verdict="KEEP",
            reason="proven-gain",
            effect=Effect(estimate=0.402, low=0.37, high=0.43),
            confirmed_effect=Effect(estimate=0.382, low=0.351, high=0.41),
            evidence=2140.7,
            pairs=15,
            requests=3000,
            sequence=[HOSTS[index % 3] for index in range(15)],
            live=LiveCheck(passed=True, effect=Effect(estimate=0.31, low=0.12, high=0.44), pairs=6),
            parameters={"nginx_gzip_comp_level": 4},
        ),
        example_trial(
            2,
            "level-1",
            reason="guardrail-p99",
            note="p99 41.2 ms, control 18.0 ms",
            effect=Effect(estimate=-0.011, low=-0.06, high=0.036),
            evidence=0.41,
            pairs=6,
            requests=1200,
            errors=1,
            sequence=[HOSTS[index % 3] for index in range(6)],
            parameters={"nginx_gzip_comp_level": 1},
        ),
        example_trial(
            3,
            "level-6",
            reason="rejected-by-nginx",
            note='invalid value "6" in /etc/nginx/nginx.conf:12',
            parameters={"nginx_gzip_comp_level": 6, "nginx_gzip_types": ["text/css"]},
        ),
    ]
    fields: dict[str, object] = {
        "run_id": "r-20261123-201500-3fa9",
        "fleet": "lab",
        "seed": 7,
        "status": "completed",
        "started_at": "2026-11-23T20:15:00Z",
        "seconds": 93.0,
        "trials": trials,
        "baseline_before": dict.fromkeys(HOSTS, BEFORE),
        "baseline_after": dict.fromkeys(HOSTS, AFTER),
    }
    return RunResult.model_validate(fields | changes)


def until_decided(plan: TrialPlan, pairs: list[Pair]) -> list[Pair]:
    judge = Judge(plan)
    return list(itertools.takewhile(lambda pair: not judge.decided and judge.fold(pair) is None, pairs))


def example_all_pairs() -> dict[int, list[Pair]]:
    kept, harmed = example_plan().trials[:2]
    return {
        1: until_decided(kept, example_pairs(0.48, 45)),
        2: until_decided(harmed, example_pairs(-0.011, 6, spread=0.05)),
    }


@pytest.fixture
def plan() -> RunPlan:
    return example_plan()


@pytest.fixture
def result() -> RunResult:
    return example_result()


@pytest.fixture
def pairs() -> dict[int, list[Pair]]:
    return example_all_pairs()
