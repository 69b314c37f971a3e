"""nginx dies or hangs under a trial."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults import moments
from tests.faults.fault import BY_LEASE, Fault, Scene


def kill_nginx(scene: Scene) -> None:
    scene.host.when_on_variant("systemctl kill --signal=KILL nginx")
    scene.restart_clock()


def faults() -> Iterator[Fault]:
    yield Fault(
        name="nginx killed while the variant is live", group="nginx", moment=moments.MID_TRIAL, inject=kill_nginx,
        exits=frozenset({3}), says=r"host-failed: .*nginx", seconds=BY_LEASE,
    )  # fmt: skip
