"""The benchmarks that need hosts still run and tell all of their figures; how good those are is not asked here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import live_decisions, push, time_to_keep, trial_overhead
from benchmarks.lab_fleet import LabFleet, lab_fleet

pytestmark = [pytest.mark.lab, pytest.mark.measures, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[LabFleet]:
    with lab_fleet("bench-smoke", 1, trials={"soak_seconds": 2}) as fleet:
        yield fleet


def test_a_push_is_timed_beside_a_ping(fleet: LabFleet) -> None:
    ratio, seconds = push.measure(fleet, hosts=1, rounds=1)
    assert ratio.value > 0.5
    assert seconds.peers["ansible -m ping"]


def test_a_clear_gain_is_kept_and_timed(fleet: LabFleet) -> None:
    figures = {figure.name: figure for figure in time_to_keep.measure(fleet, rounds=1)}
    assert figures["kept"].value == 1
    assert 0 < figures["probing until KEEP"].value < 60


def test_the_overhead_of_a_trial_is_a_share_of_it(fleet: LabFleet) -> None:
    (share,) = trial_overhead.measure(fleet, rounds=1, block_seconds=1.0)
    assert 0 < share.value < 1


def test_what_is_alike_is_not_kept_and_what_gains_is(fleet: LabFleet) -> None:
    figures = {figure.name: figure for figure in live_decisions.measure(fleet, quick=True)}
    for name in ("alike: not kept", "gain of 25 %: kept", "harm: gzip level 9: not kept"):
        assert figures[name].reached, figures
    assert figures["runs that `controller verify` recomputes"].value == 3
