"""Rate, block length and burn-in are chosen from control against control as its noise asks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy
import pytest

from controller.judge.calibration import BUSY, FIRST_RATE, MOST_STEPS, Measured, open_settings, propose
from controller.judge.rows import Row
from controller.judge.summary import paired_gain
from controller.model.calibration import Calibration, Look
from controller.model.trial import Pair, TrialPlan, TrialTiming
from tests.unit.judge import judge_trials


def plan(
    *, rate: float | None = 60.0, hosts: tuple[str, ...] = ("h1",), design: str = "duet", **changes: Any
) -> TrialPlan:
    made = judge_trials.plan(design=design, hosts=hosts, **changes)
    experiment = made.experiment.model_copy(
        update={"workload": made.experiment.workload.model_copy(update={"rate": rate})}
    )
    return made.model_copy(update={"experiment": experiment, "timing": TrialTiming.of(experiment.timing, made.design)})


@dataclass
class Host:
    """A simulated host: an A/A on it has noise of its own between blocks, requests, and just after a switch."""

    seed: int = 1
    request_noise: float = 0.05
    between: float = 0.0
    transient: float = 0.0
    transient_seconds: float = 0.15
    cpu_us: float = 500.0
    queue_at: float = 1e9
    spoilt: float = 0.0
    lead: float = 0.0

    def __post_init__(self) -> None:
        self.draw = numpy.random.default_rng(self.seed)

    def measure(self, plan: TrialPlan, look: Look) -> Measured:
        rows: dict[str, list[Row]] = {}
        pairs: list[Pair] = []
        for host in plan.hosts:
            rows[host] = []
            pairs += [self._pair(host, number, look, rows[host]) for number in range(1, look.pairs_per_host + 1)]
        return Measured(look=look, pairs=pairs, rows=rows)

    def _pair(self, host: str, number: int, look: Look, rows: list[Row]) -> Pair:
        typical = 10_000 * (3 if look.rate > self.queue_at else 1)
        gap = self.lead + self.between * self.draw.standard_normal()
        both = []
        for place, arm in enumerate("cv"):
            made = []
            for seq in range(round(look.rate * look.block_seconds)):
                at = seq / look.rate
                late = self.transient if at < self.transient_seconds else 0.0
                noise = self.request_noise * self.draw.standard_normal()
                took = round(typical * math.exp(noise + late + (gap if arm == "c" else 0.0)))
                made.append(
                    Row(
                        0,
                        number,
                        2 * number - 1 + place,
                        arm,
                        seq,
                        round(1e6 * at),
                        50,
                        took,
                        True,
                        took,
                        200,
                        99,
                        "",
                        "",
                    )
                )
            rows += made
            both.append(made)
        valid = bool(self.draw.random() >= self.spoilt)
        told = {
            "paired_gain": paired_gain(both[0], both[1]),
            "achieved_rate": look.rate,
            "metrics": {"cpu_us_per_request": self.cpu_us},
            "started_at": number * (look.block_seconds + 0.2),
            "seconds": look.block_seconds,
            "valid": valid,
        }
        blocks = [
            judge_trials.block(
                2 * number - 1 + place, name, sorted(row.objective_us for row in made)[len(made) // 2], **told
            )
            for place, (name, made) in enumerate(zip(("control", "variant"), both, strict=True))
        ]
        return Pair(host=host, number=number, control=blocks[0], variant=blocks[1])


def calibrate(of: TrialPlan, host: Host) -> Calibration:
    measured: list[Measured] = []
    while isinstance(proposal := propose(of, measured), Look):
        assert len(measured) < MOST_STEPS
        assert proposal.number == len(measured) + 1
        measured.append(host.measure(of, proposal))
    assert propose(of, measured) == proposal
    return proposal


def test_nothing_is_open_when_the_experiment_fixes_rate_and_block_length() -> None:
    assert open_settings(plan(block_seconds=2)) == []
    assert open_settings(plan()) == ["block_seconds", "burn_in_seconds"]
    assert open_settings(plan(rate=None, block_seconds=2, burn_in_seconds=1)) == ["rate"]


def test_a_quiet_host_gets_the_shortest_blocks() -> None:
    found = calibrate(plan(), Host(request_noise=0.02))
    assert (found.block_seconds, found.burn_in_seconds, found.rate) == (0.5, 0.1, 60.0)
    assert found.sound
    assert len(found.steps) == 1


def test_noise_of_requests_asks_for_longer_blocks() -> None:
    lengths = [calibrate(plan(), Host(request_noise=noise, seed=3)).block_seconds for noise in (0.02, 0.3, 0.5)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0]


def test_noise_between_blocks_does_not_as_length_would_not_lessen_it() -> None:
    found = [
        calibrate(plan(maximum_pairs=400), Host(request_noise=0.02, between=0.05, seed=seed)) for seed in range(20)
    ]
    assert all(each.block_seconds == 0.5 for each in found)
    assert all(each.noise_between > 0.01 for each in found)


def test_the_length_that_is_chosen_is_seldom_far_from_the_best_one() -> None:
    """Six pairs tell the noise roughly; what counts is the time that a trial takes with what was chosen."""
    for noise in (0.05, 0.2, 0.4):
        known = calibrate(plan(), Host(request_noise=noise, seed=99))
        truth = [calibrate(plan(), Host(request_noise=noise, seed=seed)) for seed in range(30)]
        chosen = [each.block_seconds for each in truth]
        usual = sorted(chosen)[len(chosen) // 2]
        assert sum(usual / 2 <= each <= usual * 2 for each in chosen) >= 24
        assert known.noise == pytest.approx(1.2533 * noise * math.sqrt(2 / 30), rel=0.9)


def test_a_block_never_has_too_few_requests_for_a_median() -> None:
    found = calibrate(plan(rate=8.0), Host())
    assert found.steps[0].look.block_seconds == 2.5
    assert found.block_seconds >= 2.5


def test_a_burn_in_lasts_until_latency_has_settled() -> None:
    short = calibrate(plan(rate=400.0), Host(request_noise=0.1))
    long = calibrate(plan(rate=400.0), Host(request_noise=0.1, transient=0.5, transient_seconds=0.19))
    assert (short.burn_in_seconds, long.burn_in_seconds) == (0.1, 0.2)


@pytest.mark.parametrize("cpu_us", [100.0, 1_000.0, 4_000.0, 20_000.0])
def test_the_rate_is_the_highest_that_leaves_the_server_idle_enough(cpu_us: float) -> None:
    found = calibrate(plan(rate=None), Host(cpu_us=cpu_us))
    used = found.rate * 2 * cpu_us / 1e6
    if found.rate > 5:
        assert used <= BUSY
    assert found.open == ["rate", "block_seconds", "burn_in_seconds"]
    assert len(found.steps) <= 2
    assert found.rate == {100.0: 800, 1_000.0: 200, 4_000.0: 50, 20_000.0: 5}[cpu_us]


def test_a_rate_at_which_requests_queue_is_left_for_a_lower_one() -> None:
    found = calibrate(plan(rate=None), Host(cpu_us=100, queue_at=150))
    assert [step.look.rate for step in found.steps] == [FIRST_RATE, 800, 400, FIRST_RATE]
    assert "the median request takes" in found.steps[1].note
    found = calibrate(plan(rate=None), Host(cpu_us=1000, queue_at=150))
    assert [step.look.rate for step in found.steps] == [FIRST_RATE, 200, 100]
    assert found.rate == 100
    assert found.sound


def test_several_hosts_share_the_pairs() -> None:
    assert propose(plan(hosts=("a", "b", "c")), []) == Look(number=1, rate=60, block_seconds=0.5, pairs_per_host=2)


def test_an_alike_pair_that_gains_clearly_and_spoilt_blocks_are_told() -> None:
    biased = calibrate(plan(), Host(lead=0.2))
    assert not biased.sound
    assert "control differs from itself" in biased.note
    spoilt = calibrate(plan(), Host(spoilt=0.8, seed=5))
    assert not spoilt.sound
    assert "did not keep its schedule" in spoilt.note
    sound = [calibrate(plan(), Host(between=0.05, seed=seed)).sound for seed in range(100)]
    assert sum(sound) >= 93


def test_noise_in_which_the_minimum_effect_drowns_is_told() -> None:
    found = calibrate(plan(minimum_effect=0.01), Host(between=0.3))
    assert found.sound
    assert "drown" in found.note
    assert found.block_seconds == 1.0
    assert all(each.pairs is None and each.seconds is None for each in found.lengths)


def test_a_switchback_is_calibrated_by_its_own_blocks() -> None:
    found = calibrate(plan(design="switchback"), Host())
    assert found.steps[0].look.block_seconds == 1.0
    assert found.block_seconds in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
