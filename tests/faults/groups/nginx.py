"""nginx dies, hangs or crashes again and again under a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.faults import moments
from tests.faults.fault import BY_LEASE, Fault, Scene

PID = "$(systemctl show nginx --property=MainPID --value)"
MASTER = f"kill -%s {PID}"
WORKERS = f"kill -%s $(pgrep -P {PID})"
CRASHING_SECONDS = 4


def on_variant(script: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        scene.host.when_on_variant(script)
        scene.restart_clock()

    return strike


def now(script: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        scene.host.run(script)

    return strike


def crash_loop(scene: Scene) -> None:
    """Kill every new worker for a while, before most have answered anything."""
    loop = "while [ $SECONDS -lt $end ]; do pkill -KILL -P $main; sleep 0.02; done"
    scene.host.when_on_variant(f"main={PID}; end=$((SECONDS + {CRASHING_SECONDS})); {loop}")
    scene.restart_clock()


def go_on(scene: Scene) -> None:
    scene.host.run("pkill -CONT nginx", check=False)


def faults() -> Iterator[Fault]:
    failed = frozenset({3})
    yield Fault(
        name="nginx killed while the variant is live", group="nginx-1", moment=moments.MID_TRIAL,
        inject=on_variant("systemctl kill --signal=KILL nginx"), exits=failed, says=r"host-failed: .*nginx",
    )  # fmt: skip
    yield Fault(
        name="nginx killed beside a duet", group="nginx-1", moment=moments.MID_TRIAL, experiment="long-duet",
        inject=now("systemctl kill --signal=KILL nginx"), exits=failed, says=r"host-failed: .*nginx",
    )  # fmt: skip
    yield Fault(
        name="a shadow instance killed", group="nginx-1", moment=moments.MID_TRIAL, experiment="long-duet",
        inject=now("systemctl kill --signal=KILL ratchet-shadow-a"), exits=frozenset({0, 3}),
        says=r"host-failed: .*shadow|guardrail-(errors|body|missing-data)",
    )  # fmt: skip
    yield Fault(
        name="nginx's workers hang (SIGSTOP) while the variant is live", group="nginx-2", moment=moments.MID_TRIAL,
        inject=on_variant(WORKERS % "STOP"), exits=frozenset({0, 3, 5}),
        says="host-failed: |guardrail-|could not be verified|the baseline is live, but",
        seconds=BY_LEASE, mend=go_on,
    )  # fmt: skip
    yield Fault(
        name="nginx's master hangs (SIGSTOP) while the variant is live", group="nginx-2", moment=moments.MID_TRIAL,
        inject=on_variant(MASTER % "STOP"), exits=failed | {5},
        says="host-failed: |could not be verified|the baseline is live, but", seconds=BY_LEASE, mend=go_on,
    )  # fmt: skip
    # Few requests come in so short a time: the trial may as well survive it.
    yield Fault(
        name=f"nginx's workers crash for {CRASHING_SECONDS} s", group="nginx-2", moment=moments.MID_TRIAL,
        inject=crash_loop, experiment="short", exits=frozenset({0, 3}), says="host-failed: |REVERT ", seconds=None,
    )  # fmt: skip
    yield Fault(
        name="nginx stopped by hand", group="nginx-1", moment=moments.MID_TRIAL,
        inject=on_variant("systemctl stop nginx"), exits=failed, says="host-failed: .*nginx",
    )  # fmt: skip
