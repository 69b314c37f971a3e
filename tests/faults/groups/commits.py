"""A commit and a rollback broken at each of their boundaries: in the end record, hosts and settings agree."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.faults import moments
from tests.faults.bay import Bay
from tests.faults.fault import KILLED, Fault, Scene
from tests.faults.groups.disks import fill_state, give_back, small_disk_here
from tests.faults.groups.network import cut, cut_for_good, join
from tests.faults.groups.signals import sent

# Longer than a transaction waits for a locked SQLite, shorter than the two minutes that a commit insists.
AWAY_SECONDS = 30
# As the store records them (controller/model/commit.py).
BOUNDARIES = ("going-live", "confirming", "booking")


def keep_something(bay: Bay) -> None:
    """A run that keeps its variant: the rollback's object. Raises RuntimeError."""
    for _ in range(3):
        run = bay.start("optimize", "--fleet", bay.name, "--experiment", "keep", "--seed", "7")
        if run.wait(240) == 0 and bay.note_kept():
            return
    raise RuntimeError(f"nothing was kept: {run.said[-600:]}")


def kill(scene: Scene) -> None:
    scene.run.kill()


def lock_database(scene: Scene) -> None:
    connection = sqlite3.connect(scene.bay.project / ".ratchet/ratchet.db", timeout=20, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(AWAY_SECONDS)
    connection.execute("ROLLBACK")
    connection.close()


def fill_disk_for_a_while(scene: Scene) -> None:
    fill_state(scene)
    time.sleep(AWAY_SECONDS)
    (scene.bay.project / ".ratchet/filler").unlink()


def power_off_for_a_while(scene: Scene) -> None:
    scene.host.power_off()
    time.sleep(AWAY_SECONDS / 2)
    scene.host.power_on()
    scene.host.booted(scene.since)


def joined(scene: Scene) -> None:
    scene.run.wait(300)
    join(scene)


def kinds() -> Iterator[Fault]:
    """Each kind once, at no boundary yet."""

    def fault(name: str, inject: Callable[[Scene], None], *exits: int, says: str = "") -> Fault:
        return Fault(
            name=name, group="", moment=moments.START, inject=inject, exits=frozenset(exits), says=says, seconds=None,
            experiment="keep", agrees=True,
        )  # fmt: skip

    stopped = "is finished first|putting the baseline back|stopping|every host|kept|verified"
    yield fault("controller killed (-9)", kill, KILLED)
    yield fault("Ctrl-C", sent(signal.SIGINT, 1), 0, 130, says=stopped)
    yield fault("Ctrl-C twice", sent(signal.SIGINT, 2), 0, 5, 130, says=stopped)
    yield fault("SIGTERM", sent(signal.SIGTERM, 1), 0, 130, says=stopped)
    yield replace(fault(f"a host cut off for {AWAY_SECONDS} s", cut(AWAY_SECONDS), 0, 3, 5), mend=joined)
    yield replace(
        fault("a host cut off for good", cut_for_good, 0, 3, 5, says=r"next: |verified"), mend=joined, patience=400
    )
    yield fault("a host switched off and on", power_off_for_a_while, 0, 3, 5)
    yield fault(f"the database locked for {AWAY_SECONDS} s", lock_database, 0, 3)
    yield replace(
        fault(f"the controller's disk full for {AWAY_SECONDS} s", fill_disk_for_a_while, 0, 3, 5),
        prepare=small_disk_here(".ratchet", 0), mend=give_back(".ratchet"),
    )  # fmt: skip


def prepared(fault: Fault) -> Callable[[Bay], None]:
    def prepare(bay: Bay) -> None:
        keep_something(bay)
        fault.prepare(bay)

    return prepare


def faults() -> Iterator[Fault]:
    for number, state in enumerate(BOUNDARIES, 1):
        for kind in kinds():
            at = replace(kind, moment=moments.commit(state))
            yield replace(at, name=f"{kind.name}, at every step of a commit", group=f"commits-{number}")
    for number, state in enumerate(BOUNDARIES, 1):
        for kind in kinds():
            at = replace(kind, moment=moments.commit(state), rolls_back=True, prepare=prepared(kind))
            yield replace(at, name=f"{kind.name}, at every step of a rollback", group=f"rollbacks-{number}")
