"""The power of a host fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.faults import moments
from tests.faults.fault import AT_ONCE, Fault, Moment, Scene

OFF_SECONDS = 2.0


def cut(scene: Scene) -> None:
    """Off, and on again."""
    scene.host.power_off()
    time.sleep(OFF_SECONDS)
    _power_on(scene)


def at_a_switch(then: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """Strike when the variant is going live, the reload under way."""

    def strike(scene: Scene) -> None:
        scene.host.at_a_switch("true")
        then(scene)

    return strike


def cut_until_the_run_has_ended(scene: Scene) -> None:
    scene.host.power_off()
    scene.run.wait(150)
    _power_on(scene)


def _power(moment: Moment, inject: Callable[[Scene], None], what: str, experiment: str, says: str) -> Fault:
    return Fault(
        name=f"power cut {what}", group="power", moment=moment, inject=inject, experiment=experiment,
        # 5: it was not up again when the controller wanted to look.
        exits=frozenset({3, 5}), says=f"{says}|could not be verified", seconds=AT_ONCE,
    )  # fmt: skip


def faults() -> Iterator[Fault]:
    yield _power(moments.MID_TRIAL, at_a_switch(cut), "at a switch", "long", "host-failed: ")
    yield _power(moments.MID_TRIAL, cut, "in mid-trial (duet)", "long-duet", "host-failed: ")
    yield _power(moments.step("committing"), at_a_switch(cut), "in mid-confirm", "keep", "commit-failed: |failed: ")
    yield Fault(
        name="power off for longer than the run", group="power-2", moment=moments.MID_TRIAL,
        inject=at_a_switch(cut_until_the_run_has_ended), exits=frozenset({5}),
        says="next: controller rollback", seconds=AT_ONCE,
    )  # fmt: skip
    yield Fault(
        name="host rebooted in mid-trial", group="power-2", moment=moments.MID_TRIAL,
        inject=at_a_switch(_reboot), exits=frozenset({3, 5}),
        says="host-failed: |could not be verified", seconds=AT_ONCE,
    )  # fmt: skip
    for name, inject in (("power cut in the soak", cut), ("host rebooted in the soak", _reboot)):
        yield Fault(
            name=name, group="power-3", moment=moments.SOAK, inject=inject, experiment="keep",
            exits=frozenset({3, 5}), says="host-failed: |could not be verified", seconds=AT_ONCE,
        )  # fmt: skip
    yield Fault(
        name="power cut in the live check", group="power-2", moment=moments.step("checking on the live instance"),
        inject=at_a_switch(cut), experiment="keep", exits=frozenset({3, 5}), says="host-failed: |could not be verified",
        seconds=AT_ONCE,
    )  # fmt: skip


def _reboot(scene: Scene) -> None:
    struck = time.monotonic()
    scene.host.run("systemctl reboot", check=False)
    scene.count_from_boot(struck)


def _power_on(scene: Scene) -> None:
    struck = time.monotonic()
    scene.host.power_on()
    scene.count_from_boot(struck)
