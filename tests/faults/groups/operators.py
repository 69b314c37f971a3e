"""What people do in the middle of a run, and what happens to the controller's database and the evidence."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator

from tests.faults import moments
from tests.faults.bay import Bay
from tests.faults.fault import AT_ONCE, BY_LEASE, INTERRUPTED, Fault, Scene
from tests.faults.live_run import LiveRun

EDITED = "/etc/nginx/conf.d/by-hand.conf"
LOCKED_SECONDS = 25.0


def second_controller(scene: Scene) -> None:
    done = scene.bay.controller("optimize", "--fleet", scene.bay.name, "--experiment", "brief")
    if done.returncode != 4 or "is held by run r-" not in done.stderr:
        raise RuntimeError(f"the second controller ended with {done.returncode}: {done.stderr[-300:]}")
    scene.restart_clock()
    scene.run.ask_to_stop(signal.SIGTERM)


def controller_from_elsewhere(scene: Scene) -> None:
    """A colleague's copy of the project, with a lock and a database of its own."""
    copy = scene.bay.folder / "colleague"
    shutil.copytree(scene.bay.project, copy, symlinks=True, ignore=shutil.ignore_patterns("runs", "locks", "*.db*"))
    other = LiveRun(
        [sys.executable, "-m", "controller", "optimize", "--fleet", scene.bay.name, "--experiment", "brief"],
        project=copy, environment=scene.bay.environment, output=scene.bay.folder / "output" / f"other-{time.time_ns()}",
    )  # fmt: skip
    code = other.wait(120)
    shutil.rmtree(copy)
    if code not in {3, 4}:
        raise RuntimeError(f"the colleague's run ended with {code}: {other.said[-300:]}")
    if scene.run.ended:
        raise RuntimeError(f"the first run was ended by it: {scene.run.said[-300:]}")
    scene.restart_clock()
    scene.run.ask_to_stop(signal.SIGTERM)


def edit_by_hand(scene: Scene) -> None:
    scene.host.run(f"echo '# somebody was here' >{EDITED}")
    scene.run.wait(120)


def edit_is_kept(scene: Scene) -> None:
    content = scene.host.run(f"cat {EDITED}", check=False)
    scene.host.run(f"rm -f {EDITED}")
    if "somebody was here" not in content:
        raise RuntimeError("the edit by hand is lost")


def lock_database(scene: Scene) -> None:
    """Somebody's backup holds it."""
    path = scene.bay.project / ".ratchet/ratchet.db"
    taken = threading.Event()

    def hold() -> None:
        with sqlite3.connect(path, timeout=20, isolation_level=None) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            taken.set()
            time.sleep(LOCKED_SECONDS)
            connection.execute("ROLLBACK")

    threading.Thread(target=hold, daemon=True).start()
    if not taken.wait(20):
        raise RuntimeError("the database could not be locked")


def corrupt(bay: Bay) -> None:
    path = bay.project / ".ratchet/ratchet.db"
    for each in path.parent.glob("ratchet.db*"):
        shutil.copy(each, bay.folder / f"{each.name}.kept")
    path.write_bytes(b"this was a database once\n" * 400)


def corrupt_now(scene: Scene) -> None:
    corrupt(scene.bay)


def restore_database(scene: Scene) -> None:
    folder = scene.bay.project / ".ratchet"
    for each in folder.glob("ratchet.db*"):
        each.unlink()
    for kept in scene.bay.folder.glob("ratchet.db*.kept"):
        shutil.move(kept, folder / kept.stem)


def truncate_csv(scene: Scene) -> None:
    """Between the agent's end and the controller's pull."""
    folder = f"/var/lib/ratchet/probe/{scene.run.run_id}"
    script = f"for i in $(seq 20000); do [ -e {folder}/1.csv.gz -a ! -e {folder}/1.csv ] && break; sleep 0.002; done; "
    scene.host.run(script + f"truncate -s -40 {folder}/1.csv.gz")


def faults() -> Iterator[Fault]:
    yield Fault(
        name="a second controller", group="operators-1", moment=moments.MID_TRIAL, inject=second_controller,
        exits=frozenset({INTERRUPTED}), says="stopped by the operator",
    )  # fmt: skip
    yield Fault(
        name="a controller from a colleague's copy of the project", group="operators-1", moment=moments.MID_TRIAL,
        inject=controller_from_elsewhere, exits=frozenset({INTERRUPTED}), says="stopped by the operator",
    )  # fmt: skip
    for moment, experiment in ((moments.MID_TRIAL, "short"), (moments.MID_TRIAL, "short-duet")):
        yield Fault(
            name="an edit by hand in mid-run", group="operators-1", moment=moment, inject=edit_by_hand,
            experiment=experiment, exits=frozenset({3, 5}), says=r"by-hand\.conf", seconds=None, mend=edit_is_kept,
        )  # fmt: skip
    yield Fault(
        name="the CSV truncated before it is pulled", group="operators-1", moment=moments.event("trial-started"),
        inject=truncate_csv, experiment="short", exits=frozenset({0}), says="REVERT measurement-invalid: ",
        seconds=None,
    )  # fmt: skip
    yield Fault(
        name=f"the database locked for {LOCKED_SECONDS:.0f} s", group="operators-2", moment=moments.MID_TRIAL,
        inject=lock_database, experiment="short", exits=frozenset({0, 3}), says="database|verified",
        seconds=BY_LEASE + LOCKED_SECONDS,
    )  # fmt: skip
    yield Fault(
        name="the database corrupt before the run", group="operators-2", moment=moments.START,
        inject=lambda _: None, prepare=corrupt, mend=restore_database, exits=frozenset({2}),
        says="the database cannot be opened", seconds=AT_ONCE,
    )  # fmt: skip
    yield Fault(
        name="the database corrupt in mid-trial", group="operators-2", moment=moments.MID_TRIAL,
        inject=corrupt_now, mend=restore_database, experiment="short", exits=frozenset({0, 3}),
        says="database", seconds=BY_LEASE + 10,
    )  # fmt: skip
