"""The soak finds slow harm, and lets a healthy variant pass on a host that is never quite still."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.judge.soak import SoakJudge, higher, judge_soak, soak_blocks, theil_sen
from controller.model.blocks import Block
from controller.model.trial import Judgement, Pair, TrialPlan
from tests.unit.judge.judge_trials import block, pair, plan

STEADY: dict[str, int] = {
    "rss_bytes": 40_000_000,
    "open_files": 30,
    "active_connections": 2,
    "error_log_lines": 0,
    "upstream_errors": 0,
    "psi_memory_us": 0,
    "psi_io_us": 0,
    "retransmits": 0,
}
REFERENCE = [pair(number, control={"metrics": STEADY}) for number in range(1, 7)]
BLOCKS = 12


def soak(hosts: tuple[str, ...] = ("h1",), blocks: int = BLOCKS, **guardrails: Any) -> TrialPlan:
    trial = plan(hosts=hosts, guardrails=guardrails)
    timing = trial.timing.model_copy(update={"maximum_pairs": blocks, "confirm_pairs": 0})
    return trial.model_copy(update={"design": "soak", "timing": timing})


def alone(number: int, metrics: dict[str, Any] | None = None, **changes: Any) -> Block:
    told = block(number, "variant", 100_000, started_at=float(number), metrics=STEADY | (metrics or {}), **changes)
    return told.model_copy(update={"pair": number, "seconds": changes.get("seconds", 0.833)})


def judged(make: Callable[[int], Block], reference: list[Pair] | None = None, count: int = BLOCKS) -> Judgement:
    judge = SoakJudge(soak(blocks=count), REFERENCE if reference is None else reference)
    for number in range(1, count + 1):
        if judge.decided:
            break
        judge.add("h1", make(number))
    return judge.judgement()


def rising(name: str, step: float, *, start: int = 0, noise: int = 0) -> Callable[[int], Block]:
    draw = random.Random(3)
    return lambda number: alone(
        number, {name: round(STEADY[name] + max(0, number - start) * step) + draw.randint(-noise, noise)}
    )


def test_a_healthy_variant_passes() -> None:
    found = judged(alone)
    assert (found.action, found.pairs) == ("healthy", BLOCKS)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda n: alone(n, requests=10, errors=1 if n in (4, 7) else 0), "soak-errors"),
        (lambda n: alone(n, {"rss_bytes": 90_000_000 if n > 6 else 40_000_000}), "soak-memory"),
        (rising("rss_bytes", 200_000), "soak-memory"),
        (rising("open_files", 4), "soak-open-files"),
        (lambda n: alone(n, {"open_files": 200}), "soak-open-files"),
        (lambda n: alone(n, {"error_log_lines": 3, "upstream_errors": 3}), "soak-error-log"),
        (lambda n: alone(n, {"psi_memory_us": 200_000}), "soak-pressure"),
        (lambda n: alone(n, {"psi_io_us": 200_000}), "soak-pressure"),
        (lambda n: alone(n, {"retransmits": 4}), "soak-pressure"),
        (lambda n: alone(n, bodies={"GET /": "00" * 32}), "guardrail-body"),
        (lambda n: alone(n, {"rss_bytes": None}), "guardrail-missing-data"),
        (lambda n: alone(n, {"error_log_lines": None}), "guardrail-missing-data"),
        (lambda n: alone(n, {"psi_io_us": None}), "guardrail-missing-data"),
        (lambda n: alone(n, {"retransmits": None}), "guardrail-missing-data"),
        (lambda n: alone(n, requests=10, errors=10, error_classes={"local": 10}), "guardrail-missing-data"),
        (lambda n: alone(n + 1), "measurement-invalid"),
        (
            lambda n: alone(n, ran=[alone(n).configuration, None if n > 4 else alone(n).configuration]),
            "measurement-invalid",
        ),
    ],
)
def test_each_harm_ends_it_with_its_reason(make: Callable[[int], Block], reason: str) -> None:
    found = judged(make)
    assert (found.action, found.reason) == ("revert", reason), found.note
    assert found.note.startswith("h1")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(rising("rss_bytes", 600_000, noise=700_000), id="memory that goes up and down"),
        pytest.param(
            lambda n: alone(n, {"rss_bytes": 40_000_000 + 3_000_000 * min(n, 5)}), id="what a worker takes once"
        ),
        pytest.param(rising("rss_bytes", 20_000), id="a rise too small to matter"),
        pytest.param(
            lambda n: alone(n, {"open_files": 30 + 4 * n, "active_connections": 2 + 2 * n}), id="users coming back"
        ),
        pytest.param(lambda n: alone(n, {"error_log_lines": 6 if n in (2, 9) else 0}), id="bursts in the error log"),
        pytest.param(lambda n: alone(n, {"psi_io_us": 200_000 if n == 5 else 0}), id="a moment of pressure"),
        pytest.param(lambda n: alone(n, valid=False, invalid_reason="late"), id="a probe that was late"),
        pytest.param(lambda n: alone(n, requests=1000, errors=1 if n == 3 else 0), id="one failed request"),
    ],
)
def test_what_happens_by_itself_is_no_harm(make: Callable[[int], Block]) -> None:
    found = judged(make)
    assert found.action == "healthy", found.note


def test_errors_that_the_control_logs_too_are_nobodys() -> None:
    reference = [pair(number, control={"metrics": STEADY | {"error_log_lines": 8}}) for number in range(1, 7)]
    assert judged(lambda n: alone(n, {"error_log_lines": 3}), reference).action == "healthy"
    unread = [pair(number, control={"metrics": STEADY | {"error_log_lines": None}}) for number in range(1, 7)]
    assert judged(lambda n: alone(n, {"error_log_lines": None}), unread).action == "healthy"


def test_a_host_without_control_blocks_cannot_pass() -> None:
    assert judged(alone, []).reason == "guardrail-missing-data"


def test_every_host_must_come_to_its_end_and_one_host_is_enough_for_harm() -> None:
    reference = REFERENCE + [pair(number, host="h2", control={"metrics": STEADY}) for number in range(1, 3)]
    trial = soak(("h1", "h2"), blocks=3)
    first = [("h1", alone(number)) for number in (1, 2, 3)]
    assert judge_soak(trial, reference, first).action == "continue"
    assert judge_soak(trial, reference, [*first, *(("h2", alone(n)) for n in (1, 2, 3))]).action == "healthy"
    ill = [("h2", alone(number, requests=10, errors=5)) for number in (1,)]
    found = judge_soak(trial, reference, [*first, *ill])
    assert (found.action, found.reason) == ("revert", "soak-errors")
    with pytest.raises(ValueError, match="after the verdict"):
        judge_soak(trial, reference, [*first, *ill, ("h2", alone(2))])


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1, (2, 0.5)), (10, (12, 0.833)), (60, (12, 5.0)), (3600, (720, 5.0))]
)
def test_blocks_are_short_enough_to_see_failures_soon(seconds: float, expected: tuple[int, float]) -> None:
    assert soak_blocks(seconds) == expected


def test_a_leak_shows_in_a_soak_of_many_blocks_too() -> None:
    assert judged(rising("rss_bytes", 30_000, noise=10_000), count=120).reason == "soak-memory"


@pytest.mark.parametrize(
    ("seconds", "usual", "unseen", "seen"),
    [(10, 20e6, 130e3, 150e3), (10, 80e6, 130e3, 150e3), (600, 20e6, 3.9e3, 4.2e3), (600, 80e6, 9e3, 10e3)],
)
def test_the_smallest_leaks_that_a_soak_sees_are_those_in_docs_decision(
    seconds: float, usual: float, unseen: float, seen: float
) -> None:
    count, length = soak_blocks(seconds)
    reference = [pair(number, control={"metrics": STEADY | {"rss_bytes": int(usual)}}) for number in range(1, 7)]

    def leaking(rate: float) -> Callable[[int], Block]:
        return lambda number: alone(number, {"rss_bytes": int(usual + rate * length * number)}).model_copy(
            update={"started_at": length * number, "seconds": length}
        )

    assert judged(leaking(unseen), reference, count=count).action == "healthy"
    assert judged(leaking(seen), reference, count=count).reason == "soak-memory"


def test_false_alarms_are_rare_on_a_noisy_host() -> None:
    draw = random.Random(11)
    reverted = 0
    for _ in range(400):
        usual = draw.randint(0, 4)
        reference = [
            pair(number, control={"metrics": STEADY | {"error_log_lines": _poisson(draw, 2.0 * usual)}})
            for number in range(1, 7)
        ]
        walk = [0]
        for _ in range(BLOCKS):
            walk.append(walk[-1] + round(draw.gauss(0, 300_000)))

        def noisy(number: int, walk: list[int] = walk, usual: int = usual) -> Block:
            return alone(
                number,
                {
                    "rss_bytes": 40_000_000 + walk[number],
                    "open_files": 30 + draw.randint(-10, 10),
                    "error_log_lines": _poisson(draw, 0.833 * usual),
                    "psi_io_us": draw.randint(0, 40_000),
                },
            )

        reverted += judged(noisy, reference).action != "healthy"
    assert reverted <= 8


def _poisson(draw: random.Random, mean: float) -> int:
    return sum(draw.random() < mean / 100 for _ in range(100))


@given(st.integers(0, 60), st.floats(0.5, 60), st.integers(0, 60), st.floats(0.5, 60))
def test_counts_are_higher_only_beyond_three_times_the_usual_rate(
    count: int, seconds: float, usual: int, usual_seconds: float
) -> None:
    if higher(count, seconds, usual, usual_seconds):
        assert count / seconds > 3 * usual / usual_seconds
        assert higher(count + 1, seconds, usual, usual_seconds)


def test_the_slope_is_the_median_over_pairs_of_points() -> None:
    assert theil_sen([0, 1, 2, 3], [0, 2, 4, 6]) == 2
    assert theil_sen([0, 1, 2, 3, 4], [0, 1, 2, 3, 1000]) < 2 * 1000
    assert theil_sen([1, 1], [0, 5]) == 0
