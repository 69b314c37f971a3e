"""Variants that do harm: nginx accepts them, and Ratchet must not keep them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults import moments
from tests.faults.bay import Bay
from tests.faults.fault import AT_ONCE, BY_LEASE, Fault, Scene, nothing

SQUATTER = "ratchet-faults-squatter"


def take_port(bay: Bay) -> None:
    """Listen where only the variant wants to: nginx -t is content with a port in use, the reload is not."""
    program = (
        "import socket, time; s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, 26, 1); "
        "s.bind(('::', 80)); s.listen(); time.sleep(300)"
    )
    bay.hosts[0].run(f'systemd-run --quiet --collect --unit={SQUATTER} python3 -c "{program}"')


def free_port(scene: Scene) -> None:
    scene.host.run(f"systemctl stop {SQUATTER}", check=False)


def faults() -> Iterator[Fault]:
    yield Fault(
        name="a variant that passes nginx -t and fails at reload", group="variants-1",
        moment=moments.step("committing"),
        inject=nothing, experiment="second-listener", exits=frozenset({3}),
        says=r"commit-failed: .*bind\(\) to \[::\]:80",
        prepare=take_port, mend=free_port, seconds=BY_LEASE,
    )  # fmt: skip
    for experiment, what in (("bad-gateway", "live"), ("bad-gateway-duet", "duet")):
        yield Fault(
            name=f"a variant that answers fast 502s ({what})", group="variants-1", moment=moments.pairs(1),
            inject=nothing, experiment=experiment, exits=frozenset({0}), says="REVERT guardrail-(errors|body): ",
        )  # fmt: skip
    for experiment, what in (("hungry", "live"), ("hungry-duet", "duet")):
        yield Fault(
            name=f"a variant that eats memory ({what})", group="variants-2", moment=moments.event("trial-started"),
            inject=nothing, experiment=experiment, exits=frozenset({0, 3}),
            says="REVERT (guardrail-memory|host-failed): ", seconds=BY_LEASE + 5,
        )  # fmt: skip
    yield Fault(
        name="a variant that improves p50 and more than doubles p99", group="variants-2",
        moment=moments.action("revert"),
        inject=nothing, experiment="worse-tail", exits=frozenset({0}), says="REVERT guardrail-p99: ",
    )  # fmt: skip
    yield Fault(
        name="a variant that drops the log", group="variants-1", moment=moments.START, inject=nothing,
        experiment="silent", exits=frozenset({2}), says="allow_service_reduction", seconds=AT_ONCE,
    )  # fmt: skip
