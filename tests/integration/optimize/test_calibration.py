"""What an experiment leaves open is measured, control against control, before the variant is looked at."""

from __future__ import annotations

import json

import pytest

from tests.integration.operators_fleet import WORKLOAD, FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.measures, pytest.mark.timeout(400)]


def test_rate_and_blocks_are_calibrated_once_and_the_choice_is_recomputed_from_its_evidence(
    fleet: FleetUnderTest,
) -> None:
    open_rate = {key: value for key, value in WORKLOAD.items() if key != "rate"}
    fleet.write_experiment(
        "calibrated",
        {"alike": {"nginx_postpone_output": 1461}, "alike-too": {"nginx_postpone_output": 1462}},
        workload=open_rate,
        timing={"maximum_pairs": 5, "confirm_pairs": 3},
    )
    result = fleet.optimize("calibrated")
    folder = fleet.project / "runs" / result["run_id"]
    first, second = (json.loads((folder / f"trials/{n}/plan.json").read_text()) for n in (1, 2))
    found = first["calibration"]
    assert found["open"] == ["rate", "block_seconds", "burn_in_seconds"]
    assert found == second["calibration"]
    assert found["steps"][0]["look"]["rate"] == 20
    assert first["experiment"]["workload"]["rate"] == found["rate"] >= 5
    assert first["timing"]["block_seconds"] == found["block_seconds"]
    assert len(list(folder.glob("trials/*/calibration/*/*.csv.gz"))) == len(found["steps"]) * len(first["hosts"])
    assert (folder / "log.jsonl").read_text().count("control against control,") == len(found["steps"])
    assert "blocks of" in fleet.controller("show", result["run_id"]).stdout
    assert "<dt>calibrated</dt>" in (folder / "report.html").read_text()
    assert fleet.controller("verify", result["run_id"]).returncode == 0

    # Another choice than the evidence gives is noticed.
    first["calibration"]["block_seconds"] = first["timing"]["block_seconds"] = 7.5
    (folder / "trials/1/plan.json").write_text(json.dumps(first))
    done = fleet.controller("verify", result["run_id"], "--output", "json")
    assert done.returncode == 3
    assert ["another choice" in trial["note"] for trial in json.loads(done.stdout)["trials"]] == [True, False]
