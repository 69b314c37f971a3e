"""The wall clock is wrong, or jumps in mid-trial: for every program that Ratchet runs, through a preloaded library.

The kernel's own clock no test of a container may move: that a lease ends by the boot clock is shown by what is written
of it (tests/integration/host/test_leases.py).
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults import moments
from tests.faults.bay import Bay
from tests.faults.fault import Fault, Scene

SOURCE = Path(__file__).parents[1] / "lying_clock.c"
DAY = 86400
ON_HOST, LIE = "/usr/local/lib/lying-clock.so", "/run/lying-clock"


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def _build(bay: Bay) -> Path:
    library = bay.folder / "lying-clock.so"
    subprocess.run([compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    return library


def host_lies(days: int) -> Callable[[Bay], None]:
    """Every process that starts on the host from now on."""

    def prepare(bay: Bay) -> None:
        host = bay.hosts[0]
        host.put(_build(bay), ON_HOST)
        host.put_bytes(struct.pack("<q", days * DAY), LIE)
        host.run(f"echo {ON_HOST} >/etc/ld.so.preload && chmod 644 {LIE} {ON_HOST}")

    return prepare


def host_jumps(days: int) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        scene.host.put_bytes(struct.pack("<q", days * DAY), LIE)

    return strike


def host_tells_the_truth(scene: Scene) -> None:
    scene.host.run(f"rm -f /etc/ld.so.preload {ON_HOST} {LIE}")


def controller_lies(days: int) -> Callable[[Bay], None]:
    def prepare(bay: Bay) -> None:
        lie = bay.folder / "lying-clock"
        lie.write_bytes(struct.pack("<q", days * DAY))
        bay.environment |= {"LD_PRELOAD": str(_build(bay)), "LYING_CLOCK": str(lie)}

    return prepare


def controller_jumps(days: int) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        with (scene.bay.folder / "lying-clock").open("r+b") as lie:
            lie.write(struct.pack("<q", days * DAY))

    return strike


def controller_tells_the_truth(scene: Scene) -> None:
    for name in ("LD_PRELOAD", "LYING_CLOCK"):
        scene.bay.environment.pop(name)


def faults() -> Iterator[Fault]:
    """Nothing where there is no C compiler."""
    if compiler() is None:
        return
    said = "baseline restored and verified"
    for days in (3, -3):
        yield Fault(
            name="the host's clock wrong by 3 days", group="clocks", moment=moments.pairs(1), inject=lambda _: None,
            prepare=host_lies(days), mend=host_tells_the_truth, experiment="short", exits=frozenset({0}), says=said,
            seconds=None,
        )  # fmt: skip
        yield Fault(
            name="the host's clock jumps by 3 days in mid-trial", group="clocks", moment=moments.MID_TRIAL,
            inject=host_jumps(days), prepare=host_lies(0), mend=host_tells_the_truth, experiment="short",
            exits=frozenset({0}), says=said, seconds=None,
        )  # fmt: skip
        yield Fault(
            name="the controller's clock jumps by 3 days in mid-trial", group="clocks", moment=moments.MID_TRIAL,
            inject=controller_jumps(days), prepare=controller_lies(0), mend=controller_tells_the_truth,
            experiment="short", exits=frozenset({0}), says=said, seconds=None,
        )  # fmt: skip
