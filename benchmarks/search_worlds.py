"""Simulated hosts for searches: what a setting truly gains, and what a stint of pairs shows of it.

The surface has the shape that nginx shows on real hosts: a few parameters that matter much, with optima inside their
range and one switch that opens another; several that hardly matter; one that does harm at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy

from controller.judge.decision import Decision, Outcome, Rule
from controller.judge.evidence import effect
from controller.judge.stints import CompetingDecision
from controller.model.experiment import Experiment, ParameterValue, Variant
from controller.model.trial import Judgement, Stint, TrialPlan, TrialTiming
from controller.search.ledger import Entry, Try

Parameters = Mapping[str, ParameterValue]
PAIR_NOISE = 0.013
PAIR_SECONDS, STINT_SECONDS = 1.4, 5.0
SIZES = ["4k", "8k", "16k", "32k", "64k", "128k"]


def experiment() -> Experiment:
    """Twelve parameters of a proxied and static workload."""
    ordered = {"kind": "choice", "ordered": True}
    switch = {"kind": "choice", "values": [False, True]}
    return Experiment.model_validate(
        {
            "name": "simulated",
            "question": "Which settings answer soonest?",
            "why": "to compare searches",
            "risk": {"level": "low", "note": "none"},
            "sources": ["a simulation"],
            "workload": {"rate": 100, "requests": [{"path": "/"}]},
            "ranges": {
                "nginx_gzip_comp_level": {"kind": "integer", "low": 1, "high": 9},
                "nginx_gzip_min_length": {"kind": "integer", "low": 64, "high": 16384, "log": True},
                "nginx_upstream_keepalive": {"kind": "integer", "low": 1, "high": 256, "log": True},
                "nginx_proxy_buffering": switch,
                "nginx_proxy_buffer_size": ordered | {"values": SIZES, "when": {"nginx_proxy_buffering": True}},
                "nginx_open_file_cache": switch,
                "nginx_open_file_cache_max": {
                    "kind": "integer", "low": 16, "high": 16384, "log": True, "when": {"nginx_open_file_cache": True},
                },
                "nginx_output_buffers": ordered | {"values": [f"2 {size}" for size in SIZES]},
                "nginx_access_log_buffer": ordered | {"values": ["0", *SIZES]},
                "nginx_postpone_output": {"kind": "integer", "low": 0, "high": 2920, "step": 292},
                "nginx_multi_accept": switch,
                "nginx_worker_connections": {"kind": "integer", "low": 256, "high": 8192, "log": True},
            },
        }
    )  # fmt: skip


def true_gain(parameters: Parameters) -> float:
    """ln(baseline / setting): the baseline has level 6, no upstream connections kept, no cache of files."""
    level = int(str(parameters["nginx_gzip_comp_level"]))
    gain = 0.10 - 0.012 * (level - 3) ** 2 if level >= 3 else 0.10 - 0.03 * (3 - level)
    gain += 0.10 * min(1.0, math.log2(float(str(parameters["nginx_upstream_keepalive"]))) / 5)
    gain -= 0.02 * abs(math.log2(float(str(parameters["nginx_gzip_min_length"])) / 1024)) / 4
    if parameters["nginx_proxy_buffering"]:
        gain += 0.03 * SIZES.index(str(parameters["nginx_proxy_buffer_size"])) / 5
    else:
        gain -= 0.05
    if parameters["nginx_open_file_cache"]:
        gain += -0.02 + 0.08 * min(1.0, math.log2(float(str(parameters["nginx_open_file_cache_max"])) / 16) / 6)
    place = SIZES.index(str(parameters["nginx_output_buffers"]).removeprefix("2 "))
    gain += 0.04 - 0.012 * (place - 4) ** 2
    gain += 0.02 if parameters["nginx_access_log_buffer"] != "0" else 0.0
    gain -= 0.03 * (float(str(parameters["nginx_postpone_output"])) / 2920 - 0.5) ** 2
    gain += 0.005 if parameters["nginx_multi_accept"] else 0.0
    return gain - 0.05


def plan(number: int, variant: Variant, about: Experiment, *, variants: int) -> TrialPlan:
    return TrialPlan(
        number=number,
        experiment=about,
        variant=variant,
        design="duet",
        timing=TrialTiming.of(about.timing, "duet"),
        hosts=["simulated"],
        seed=1,
        alpha=0.05,
        variants_in_run=variants,
    )


class SimulatedHost:
    """Measures variants: each pair's gain is the true one and noise, normal with bursts."""

    def __init__(self, truth: Callable[[Parameters], float], seed: int, noise: float = PAIR_NOISE) -> None:
        self.truth = truth
        self._random = numpy.random.default_rng(seed)
        self._noise = noise
        self._decisions: dict[int, CompetingDecision] = {}
        self.seconds = 0.0

    def gains(self, parameters: Parameters, count: int) -> list[float]:
        bursts = 1.0 + 4.0 * (self._random.random(count) < 0.05)
        return [float(x) for x in self.truth(parameters) + self._noise * bursts * self._random.standard_normal(count)]

    def measure(self, of: TrialPlan, proposal: Try, stint: int) -> Entry:
        """One stint, judged with the variant's earlier ones."""
        decision = self._decisions.setdefault(of.number, CompetingDecision(Rule.of(of)))
        decision.begin(alone=proposal.alone)
        pairs, outcome = 0, Outcome("continue", None, "")
        for gain in self.gains(of.variant.parameters, proposal.pairs_per_host):
            pairs, outcome = pairs + 1, decision.add(gain)
            if outcome.action in {"keep", "revert"}:
                break
        seconds = STINT_SECONDS + pairs * PAIR_SECONDS
        self.seconds += seconds
        ended = outcome.reason if outcome.action in {"keep", "revert"} else None
        return Entry(
            trial=of.number,
            variant=of.variant,
            stint=Stint(number=stint, alone=proposal.alone, pairs_per_host=proposal.pairs_per_host),
            judgement=Judgement(
                action=outcome.action,
                reason=outcome.reason,
                note=outcome.note,
                evidence=decision.better.value,
                evidence_slower=decision.slower.value,
                threshold=decision.rule.threshold,
                pairs=decision.pairs,
                effect=effect(decision.searched),
                confirmed_effect=effect(decision.fresh),
            ),
            ended=ended,
            seconds=seconds,
        )

    def prove(self, of: TrialPlan) -> tuple[bool, float]:
        """An ordinary trial: (kept, the fresh pairs' gain or what was seen of it)."""
        decision = Decision(Rule.of(of))
        outcome = None
        for gain in self.gains(of.variant.parameters, of.timing.planned_pairs):
            outcome = decision.add(gain)
            self.seconds += PAIR_SECONDS
            if outcome.action in {"keep", "revert"}:
                break
        seen = effect(decision.fresh) or effect(decision.searched)
        return outcome is not None and outcome.action == "keep", 0.0 if seen is None else seen.estimate
