"""One fault of each kind in whole runs, on one host; `make faults` injects all of them, again and again."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.bay import Bay
from tests.faults.catalogue import short_cut
from tests.faults.exercise import exercise, finish
from tests.faults.fault import LEASE, Fault
from tests.faults.switches import switch_back_and_forth

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

# What other tests beside it may take of the machine; `make faults` runs alone, and holds the promised times.
BUSY_SECONDS = 15.0


@pytest.fixture(scope="module")
def bay(lab_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bay]:
    folder = tmp_path_factory.mktemp("faults")
    bay = Bay(
        folder, name="faults", lab=lab_session.session.name, endpoint=lab_session.endpoint, token=lab_session.token,
        hosts=1, trials={"lease_seconds": LEASE, "soak_seconds": 4},
    )  # fmt: skip
    bay.make_ready()
    yield bay
    bay.controller("destroy", "--fleet", "faults", "--yes")


@pytest.mark.parametrize("fault", short_cut(), ids=lambda fault: fault.name)
def test_the_host_comes_back_by_itself(bay: Bay, fault: Fault) -> None:
    if fault.seconds is not None:
        fault = dataclasses.replace(fault, seconds=fault.seconds + BUSY_SECONDS)
    assert exercise(bay, fault, random.Random(1)).problems == []


def test_what_was_broken_off_is_resumed_and_an_ordinary_run_is_possible(bay: Bay) -> None:
    assert finish(bay) == []


def test_no_request_is_lost_at_a_switch(bay: Bay) -> None:
    outcome, _ = switch_back_and_forth(bay, bay.hosts[0], 20)
    assert outcome.problems == []
