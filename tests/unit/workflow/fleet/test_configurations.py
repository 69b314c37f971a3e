"""What the hosts answer to a push decides what may be compared."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model.errors import HostFailed
from controller.workflow.fleet.configurations import Rejected, SocketsDiffer, arm_ids, never_live, sockets_differ

BASE = "a" * 16
VARIANT = "b" * 16


def staged(**changes: Any) -> dict[str, dict[str, Any]]:
    arms: dict[str, Any] = {
        "baseline": {"id": BASE, "ok": True},
        "control": {"id": BASE, "ok": True},
        "variant": {"id": VARIANT, "ok": True},
    }
    return {"web-1": arms | changes}


def test_the_arms_are_the_ids_that_the_host_told() -> None:
    assert arm_ids(staged(), {"web-1": BASE}, "prod") == ({"web-1": BASE}, {"web-1": VARIANT})


def test_an_inventory_that_was_changed_but_not_deployed_stops_the_trial() -> None:
    with pytest.raises(HostFailed, match="settings were changed but not deployed") as caught:
        arm_ids(staged(), {"web-1": "c" * 16}, "prod")
    assert "inventory/prod playbooks/commit.yml" in caught.value.next_step


def test_a_variant_that_nginx_refuses_is_rejected_with_its_message() -> None:
    with pytest.raises(Rejected, match='web-1: unknown directive "gzap"'):
        arm_ids(
            staged(variant={"id": VARIANT, "ok": False, "error": 'unknown directive "gzap"'}), {"web-1": BASE}, "prod"
        )


def test_a_control_that_nginx_refuses_is_the_experiments_fault_not_the_variants() -> None:
    with pytest.raises(HostFailed, match="refuses the control"):
        arm_ids(staged(control={"id": BASE, "ok": False, "error": "no"}), {"web-1": BASE}, "prod")


def listening(baseline: str | None, control: str | None, variant: str | None) -> dict[str, dict[str, Any]]:
    told = {"baseline": baseline, "control": control, "variant": variant}
    return staged(**{arm: {"id": BASE, "ok": True, "sockets": sockets} for arm, sockets in told.items()})


@pytest.mark.parametrize("arms", [("s", "s", "s"), (None, None, None)])
def test_arms_that_listen_as_the_baseline_does_are_switched_in_any_design(arms: tuple[str, str, str]) -> None:
    assert not any(never_live(listening(*arms), design) for design in ("duet", "switchback", "fleet"))


def test_a_host_whose_program_does_not_tell_sockets_yet_differs_in_none() -> None:
    assert not never_live(staged(), "switchback")


@pytest.mark.parametrize("arms", [("s", "s", "other"), ("s", "other", "other"), ("s", "other", "s")])
def test_an_arm_on_other_sockets_than_the_baseline_is_measured_in_a_duet_alone(arms: tuple[str, str, str]) -> None:
    assert sockets_differ(listening(*arms)) == ["web-1"]
    assert never_live(listening(*arms), "duet")
    for design in ("switchback", "fleet"):
        with pytest.raises(SocketsDiffer, match=r"web-1: it listens on other sockets.*measure it in a duet") as caught:
            never_live(listening(*arms), design)
        assert caught.value.reason == "sockets-differ"
