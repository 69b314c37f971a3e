"""Which hosts may be experimented on."""

from __future__ import annotations

from typing import Any

import pytest

from controller.workflow.fleet.hosts import unfit

FIT: dict[str, Any] = {
    "ok": True,
    "live": "a" * 16,
    "verified": True,
    "confirmed": "a" * 16,
    "drift": None,
    "lease": None,
    "claim": None,
    "nginx": {"version": "1.22.1", "running": True, "workers": 2},
    "free_mb": 5000,
}


def test_a_healthy_host_on_its_baseline_is_fit() -> None:
    assert unfit(FIT) == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ok": False, "error": "no such file"}, "no such file"),
        ({"confirmed": None}, "no confirmed baseline"),
        ({"nginx": {"running": False}}, "nginx is not running"),
        ({"lease": {"seconds_left": 30}}, "holds the host's lease"),
        ({"drift": {"nginx.conf": "+worker_connections 10;"}}, "edited by hand: nginx.conf: +worker_connections 10;"),
        ({"live": "b" * 16}, "does not run its baseline"),
        ({"verified": False}, "may still run another configuration"),
        ({"free_mb": 12}, "only 12 MB are free"),
    ],
)
def test_anything_doubtful_makes_a_host_unfit_and_says_why(change: dict[str, Any], expected: str) -> None:
    assert expected in unfit(FIT | change)
