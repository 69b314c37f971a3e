"""The network between controller and host is cut, or its SSH server hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.faults import moments
from tests.faults.bay import Bay
from tests.faults.fault import BY_LEASE, Fault, Scene

CUT = (
    "nft 'add table inet cut; add chain inet cut in { type filter hook input priority -300; }; "
    'add chain inet cut out { type filter hook output priority -300; }; add rule inet cut in iifname != "lo" drop; '
    'add rule inet cut out oifname != "lo" drop\''
)
JOIN = "nft delete table inet cut"


def cut(seconds: float) -> Callable[[Scene], None]:
    """Nothing in and nothing out for so long; the host itself joins it again."""

    def strike(scene: Scene) -> None:
        scene.host.run(
            f"systemd-run --quiet --collect --on-active={seconds}s --timer-property=AccuracySec=100ms {JOIN}"
        )
        scene.host.run(CUT)

    return strike


def cut_for_good(scene: Scene) -> None:
    scene.host.run(CUT)


def join(scene: Scene) -> None:
    scene.host.run(f"{JOIN} 2>/dev/null; pkill -CONT sshd", check=False)
    time.sleep(0.5)


def hang_sshd(scene: Scene) -> None:
    """Every sshd, those of open connections included: the connection stays, and nothing comes."""
    scene.host.run("pkill -STOP sshd")


def hang_listener(bay: Bay) -> None:
    bay.hosts[0].run("kill -STOP $(systemctl show ssh --property=MainPID --value)")


def faults() -> Iterator[Fault]:
    yield Fault(
        name="network cut for 1 s", group="network-1", moment=moments.pairs(2), inject=cut(1), experiment="short",
        exits=frozenset({0}), says="baseline restored and verified", seconds=None, mend=join,
    )  # fmt: skip
    yield Fault(
        name="network cut for 5 s, half a lease", group="network-1", moment=moments.pairs(2), inject=cut(5),
        experiment="short", exits=frozenset({0}), says="baseline restored and verified", seconds=None, mend=join,
    )  # fmt: skip
    yield Fault(
        name="network cut for 20 s, two leases", group="network-1", moment=moments.MID_TRIAL, inject=cut(20),
        exits=frozenset({3}), says="host-failed: ", seconds=BY_LEASE, alone=True, mend=join,
    )  # fmt: skip
    yield Fault(
        name="network cut for 30 s (duet)", group="network-2", moment=moments.MID_TRIAL, inject=cut(30),
        experiment="long-duet", exits=frozenset({3, 5}), says="host-failed: ", seconds=BY_LEASE, alone=True, mend=join,
    )  # fmt: skip
    yield Fault(
        name="network cut for good", group="network-2", moment=moments.MID_TRIAL, inject=cut_for_good,
        exits=frozenset({5}), says="next: controller rollback", seconds=BY_LEASE, alone=True, mend=join, patience=400,
    )  # fmt: skip
    yield Fault(
        name="sshd hangs in mid-trial", group="network-3", moment=moments.MID_TRIAL, inject=hang_sshd,
        exits=frozenset({5}), says="next: controller rollback", seconds=BY_LEASE, alone=True, mend=join, patience=400,
    )  # fmt: skip
    yield Fault(
        name="sshd accepts and hangs before the run", group="network-3", moment=moments.START, inject=lambda _: None,
        prepare=hang_listener, exits=frozenset({3}), says="accepts connections, but its SSH server does not answer",
        mend=join,
    )  # fmt: skip
