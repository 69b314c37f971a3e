"""An experiment may name exactly the objectives that its workload can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.files.experiments import read_experiment
from controller.model.errors import BadInput
from controller.model.metrics import METRICS

WORKLOADS: dict[str, dict[str, Any]] = {
    "steady": {},
    "saturation": {"workload": {"rate": 50, "mode": "saturation", "requests": [{"path": "/"}]}},
    "live": {"source": "live"},
}


@pytest.mark.parametrize("asked", WORKLOADS)
@pytest.mark.parametrize("metric", [name for name, spec in METRICS.items() if spec.modes])
def test_an_objective_is_read_where_the_registry_allows_it(metric: str, asked: str, tmp_path: Path) -> None:
    spec = METRICS[metric]
    path = tmp_path / "e" / "meta.json"
    path.parent.mkdir()
    experiment = {
        "question": "Is another level better?",
        "why": "It costs less time.",
        "risk": {"level": "low", "note": "none"},
        "sources": ["a hunch"],
        "variants": [{"name": "v", "parameters": {"nginx_gzip_comp_level": 4}}],
        "workload": {"rate": 50, "requests": [{"path": "/"}]},
        "objective": {"metric": metric},
    }
    path.write_text(json.dumps(experiment | WORKLOADS[asked]))
    allowed = {"steady": "steady" in spec.modes, "saturation": "saturation" in spec.modes}
    if allowed.get(asked, "steady" in spec.modes and not spec.not_live):
        assert list(read_experiment(path).objective.weights) == [metric]
        return
    with pytest.raises(BadInput) as refused:
        read_experiment(path)
    assert refused.value.what.startswith(f"{metric} ")
    assert refused.value.next_step
