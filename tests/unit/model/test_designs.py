"""Each design that an experiment or a plan may name is described."""

from __future__ import annotations

from typing import get_args

import pytest

from controller.model.designs import DESIGNS
from controller.model.experiment import Design, Timing
from controller.model.trial import ProbeDesign, TrialTiming


def test_there_is_one_description_of_each_design() -> None:
    assert set(DESIGNS) == set(get_args(ProbeDesign)) == {*get_args(Design), "soak"}


@pytest.mark.parametrize("design", get_args(Design))
def test_blocks_whose_length_is_left_out_have_one_that_a_calibration_could_choose(design: Design) -> None:
    block = TrialTiming.of(Timing(), design).block_seconds
    assert block > 0
    assert not DESIGNS[design].lengths or block in DESIGNS[design].lengths


def test_only_blocks_that_run_at_once_save_a_round() -> None:
    assert {name: design.rounds for name, design in DESIGNS.items()} == {
        "duet": 1, "switchback": 2, "fleet": 2, "soak": 1,
    }  # fmt: skip
