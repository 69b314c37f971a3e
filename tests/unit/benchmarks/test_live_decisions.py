"""The questions of `live_decisions` are experiments that a fleet would accept, and its figures say what was seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.lab_fleet import CHECKOUT, LabFleet
from benchmarks.live_decisions import CASES, Case, Seen, figures_of, write_experiment
from controller.adapters.files.experiments import read_experiment
from controller.adapters.files.parameters import check_parameters
from controller.model.project import Project

GAIN, ALIKE = CASES[1], CASES[0]


def trial(verdict: str, seconds: float) -> dict[str, Any]:
    effect = {"estimate": 0.3, "low": 0.2, "high": 0.4}
    return {
        "verdict": verdict,
        "reason": "proven-gain" if verdict == "KEEP" else "futile",
        "probing_seconds": seconds,
        "effect": effect,
        "confirmed_effect": effect if verdict == "KEEP" else None,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_question_is_a_valid_experiment(case: Case, tmp_path: Path) -> None:
    (tmp_path / "experiments").symlink_to(CHECKOUT / "experiments")
    name = write_experiment(LabFleet(tmp_path, {}), case)
    experiment = read_experiment(tmp_path / "experiments" / name / "meta.json")
    check_parameters(Project(CHECKOUT), experiment)
    assert experiment.requires == case.requires


def test_a_gain_has_to_be_kept_and_soon() -> None:
    kept, probing, gain = figures_of(GAIN, "", Seen(trials=[trial("KEEP", 8.0), trial("KEEP", 11.0)]))
    assert (kept.value, kept.reached) == (2, True)
    assert (probing.value, probing.reached) == (9.5, True)
    assert gain.value == 30.0
    kept, probing, _ = figures_of(GAIN, "", Seen(trials=[trial("KEEP", 20.0), trial("REVERT", 1.0)]))
    assert (kept.value, kept.reached) == (1, False)
    assert probing.reached is False


def test_what_is_alike_may_not_be_kept_and_shows_the_noise() -> None:
    kept, noise = figures_of(ALIKE, "", Seen(trials=[trial("REVERT", 9.0)], gains=[0.01, -0.01]))
    assert kept.reached
    assert (noise.value, noise.reached) == (pytest.approx(1.0), True)
    _, noise = figures_of(ALIKE, "", Seen(trials=[trial("REVERT", 9.0)], gains=[0.03, -0.03]))
    assert noise.reached is False
    kept, _ = figures_of(ALIKE, "", Seen(trials=[trial("KEEP", 9.0)], gains=[0.0]))
    assert kept.reached is False
