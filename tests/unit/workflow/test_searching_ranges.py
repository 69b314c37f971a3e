"""A search of ranges whose first look at the hosts meets a broken one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controller.model.errors import HostFailed
from controller.workflow import searching_ranges
from controller.workflow.searching_ranges import _RangeSearch


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
