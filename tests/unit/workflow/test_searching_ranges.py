"""A search of ranges whose first look at the hosts meets a broken one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.model.errors import HostFailed
from controller.model.experiment import Experiment
from controller.model.fleet import FleetSettings
from controller.model.run import Budget, RunPlan
from controller.workflow import engine, searching, searching_ranges
from controller.workflow.searching_ranges import _RangeSearch, run_bayes


class Steps:
    def __init__(self, *, quarantines: bool) -> None:
        self.baseline = {"web-1": "a" * 16, "web-2": "a" * 16}
        self._quarantines = quarantines

    def goes_on(self, _what: str, lost: dict[str, str]) -> bool:
        self.baseline = {host: known for host, known in self.baseline.items() if host not in lost}
        return bool(lost) and self._quarantines


@pytest.mark.parametrize("quarantines", [True, False])
def test_a_host_whose_limits_cannot_be_read_is_left_out_like_any_broken_one(
    quarantines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: Any = Steps(quarantines=quarantines)
    search: Any = object.__new__(_RangeSearch)
    search._steps = steps

    def limits() -> dict[str, Any]:
        if "web-2" in steps.baseline:
            raise HostFailed("unreachable over SSH", where="web-2 (192.0.2.2 port 22)")
        return {"hosts": sorted(steps.baseline)}

    search._limits = limits
    monkeypatch.setattr(searching_ranges, "engine", SimpleNamespace(step=lambda _name, function: function()))
    if quarantines:
        assert search._read_limits("limits for e") == {"hosts": ["web-1"]}
    else:
        with pytest.raises(HostFailed, match="unreachable over SSH"):
            search._read_limits("limits for e")


def test_a_search_of_ranges_without_a_safe_setting_ends_with_that_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment.model_validate(
        {
            "name": "too-big", "question": "does it help?", "why": "because it may", "sources": ["a page"],
            "risk": {"level": "low", "note": "none"}, "workload": {"rate": 20, "requests": [{"path": "/"}]},
            "ranges": {"nginx_worker_connections": {"kind": "integer", "low": 1000, "high": 2000}},
            "constraints": [{"product": ["nginx_worker_connections"], "at_most": "500"}],
        }
    )  # fmt: skip
    plan = RunPlan(
        run_id="r-1", fleet="web", seed=1, created_at="now", ratchet_version="0", hosts=["web-1"], lease_seconds=60,
        alpha=0.05, strategy="bayes", budget=Budget(), trials=[],
    )  # fmt: skip
    fleet = SimpleNamespace(settings=FleetSettings(), hosts=[SimpleNamespace(name="web-1")], name="web")
    context: Any = SimpleNamespace(fleet=fleet, run_directory=lambda _run: tmp_path)
    capacity = {"memory_bytes": 2**32, "cpus": 2, "open_files": 65536}
    limits = {"hosts": ["web-1"], "capacity": capacity, "known": {}}
    monkeypatch.setattr(engine, "step", lambda _name, function: function())
    monkeypatch.setattr(_RangeSearch, "_limits", lambda _search: limits)
    searched = run_bayes(searching.Steps(context, plan, {"web-1": "a" * 16}), experiment, first=1, experiments=1)
    assert searched.results == [] and searched.stop is None and searched.baseline == {"web-1": "a" * 16}
    assert "no safe setting" in searched.summary.stopped.lower() and searched.summary.winner == ""
