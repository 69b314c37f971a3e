"""One run per fleet between machines that share a database: two project folders stand for two machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from controller.adapters.store import FleetHold, Store, held_row
from controller.adapters.store.holding import next_generation
from controller.model.errors import BadInput, FleetLocked, HostFailed
from controller.model.project import Project
from tests.postgres import Cluster

NEVER = pytest.fail


def hold(folder: Path, store: Store, run_id: str, **changes: object) -> FleetHold:
    options: dict[str, object] = {"since": "2026-11-24T00:00:00Z", "lost": NEVER, "tell": NEVER, "seconds": 20.0}
    return FleetHold(Project(folder), store, "prod", run_id=run_id, **(options | changes))  # type: ignore[arg-type]


def test_a_second_machine_is_told_who_holds_the_fleet_and_when_it_will_be_free(store: Store, tmp_path: Path) -> None:
    with hold(tmp_path / "a", store, "r-1"):
        with pytest.raises(FleetLocked) as caught, hold(tmp_path / "b", store, "r-2"):
            pass
        assert "held by run r-1 of" in caught.value.what
        assert "since 2026-11-24T00:00:00Z" in caught.value.what
        assert "free in 20 s" in caught.value.next_step
    with hold(tmp_path / "b", store, "r-2"):
        held = held_row(store, "prod")
    assert held is not None
    assert held[0].run_id == "r-2"
    assert held_row(store, "prod") is None


def test_of_many_who_want_a_free_fleet_at_once_one_gets_it(store: Store, tmp_path: Path) -> None:
    start, done, got = threading.Barrier(5), threading.Barrier(5), []

    def try_it(number: int) -> None:
        start.wait()
        try:
            with hold(tmp_path / str(number), store, f"r-{number}"):
                got.append(number)
                done.wait(30)
        except FleetLocked:
            done.wait(30)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_a_living_holder_keeps_the_fleet_longer_than_its_row_lasts(store: Store, tmp_path: Path) -> None:
    with hold(tmp_path / "a", store, "r-1", seconds=0.8):
        time.sleep(2)
        with pytest.raises(FleetLocked), hold(tmp_path / "b", store, "r-2"):
            pass


KILLED = """
import os, sys
from pathlib import Path
from controller.adapters.store import FleetHold, Store
from controller.model.project import Project
store = Store(sys.argv[2])
FleetHold(Project(Path(sys.argv[1])), store, "prod", run_id="r-1", since="x", lost=print, tell=print,
          seconds=float(sys.argv[3])).__enter__()
os.kill(os.getpid(), 9)
"""


def test_each_process_that_takes_the_fleet_has_a_higher_generation(store: Store, tmp_path: Path) -> None:
    generations = []
    for folder, run_id in (("a", "r-1"), ("a", "r-1"), ("b", "r-2")):
        with hold(tmp_path / folder, store, run_id) as held:
            generations.append(held.generation)
    store.forget("prod", ["web-1"])
    with hold(tmp_path / "a", store, "r-1") as held:
        generations.append(held.generation)
    assert generations == sorted(set(generations)) and generations[0] > 0


def test_no_two_who_count_at_once_get_the_same_generation(store: Store) -> None:
    start, got = threading.Barrier(5), []

    def count() -> None:
        start.wait()
        got.extend(next_generation(store, "prod") for _ in range(4))

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 21))


def kill_a_holder(folder: Path, database: str, seconds: float) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(folder), database, str(seconds)]
    subprocess.run(command, check=False, timeout=30, env=environment)


def test_a_dead_holder_of_this_machine_is_replaced_at_once(database: str, store: Store, tmp_path: Path) -> None:
    kill_a_holder(tmp_path / "a", database, 600)
    told: list[str] = []
    with hold(tmp_path / "a", store, "r-2", tell=told.append):
        assert "taken over from run r-1" in told[0]


def test_a_dead_holder_of_another_machine_is_replaced_when_its_time_is_over(
    database: str, store: Store, tmp_path: Path
) -> None:
    kill_a_holder(tmp_path / "a", database, 2.5)
    with pytest.raises(FleetLocked), hold(tmp_path / "b", store, "r-2"):
        pass
    time.sleep(3)
    told: list[str] = []
    with hold(tmp_path / "b", store, "r-2", tell=told.append):
        assert "taken over from run r-1" in told[0]


def test_who_is_taken_over_by_force_learns_it_and_does_not_release_the_other_s_row(
    store: Store, tmp_path: Path
) -> None:
    lost = threading.Event()
    with hold(tmp_path / "b", store, "r-2", by_force=True, tell=lambda _: None):
        pass  # by force, though nobody has it: no different
    first = hold(tmp_path / "a", store, "r-1", lost=lambda _: lost.set(), seconds=0.8)
    first.__enter__()
    with hold(tmp_path / "b", store, "r-2", by_force=True, tell=lambda _: None):
        assert lost.wait(5)
        first.__exit__(None, None, None)
        held = held_row(store, "prod")
        assert held is not None
        assert held[0].run_id == "r-2"


@pytest.fixture
def stalled(postgresql: Cluster) -> Iterator[Callable[[], None]]:
    """Call it to stop all processes of the server, which then takes connections and answers none."""
    stopped: list[int] = []

    def stall() -> None:
        main = int((postgresql.folder / "data/postmaster.pid").read_text().split()[0])
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(main)], capture_output=True, text=True, check=True)
        stopped.extend([main, *map(int, found.stdout.split())])
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    yield stall
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_holder_whose_database_stalls_learns_it_in_time_though_its_renewal_hangs(
    postgresql: Cluster, stalled: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.adapters.store.database.BACKOFF_SECONDS", (0.1,))
    monkeypatch.setattr("controller.adapters.store.postgresql.ANSWER_SECONDS", 4.0)
    monkeypatch.setattr("controller.adapters.store.postgresql.CONNECTION", {"connect_timeout": 2})
    store, lost, told = Store(postgresql.url()), threading.Event(), []
    with hold(tmp_path, store, "r-1", lost=lambda _: lost.set(), tell=told.append, seconds=1.0):
        stalled()
        assert lost.wait(3)
    assert "is free in 1 s" in told[0]


def test_a_database_that_stalls_is_an_error_of_the_command_and_serves_again_later(
    postgresql: Cluster, stalled: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.adapters.store.database.BACKOFF_SECONDS", (0.1,))
    monkeypatch.setattr("controller.adapters.store.postgresql.ANSWER_SECONDS", 1.0)
    monkeypatch.setattr("controller.adapters.store.postgresql.CONNECTION", {"connect_timeout": 2})
    url = postgresql.url()
    store = Store(url)
    with pytest.raises(HostFailed, match=r"has not answered for 1 s"), store.transaction() as connection:
        stalled()
        connection.execute(sa.text("SELECT 1"))
    with pytest.raises(BadInput, match="cannot be opened"):
        Store(url)


def test_a_statement_that_waits_for_another_s_lock_ends(postgresql: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.adapters.store.postgresql.STATEMENT_SECONDS", 1)
    store = Store(postgresql.url())
    with store.transaction() as other:
        other.execute(sa.text("LOCK TABLE ratchet_runs"))
        with pytest.raises(HostFailed, match="statement timeout"):
            store.unfinished()
    assert store.unfinished() == []


def test_a_holder_whose_database_is_gone_learns_it_when_its_time_is_over(
    postgresql: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.adapters.store.database.BACKOFF_SECONDS", (0.1,))
    store, lost = Store(postgresql.url()), []
    told: list[str] = []
    with hold(tmp_path, store, "r-1", lost=lost.append, tell=told.append, seconds=1.0):
        postgresql.stop()
        deadline = time.monotonic() + 30
        while not lost and time.monotonic() < deadline:
            time.sleep(0.1)
    assert "could not be held" in lost[0]
    assert "free in 1 s" in told[0]
    with pytest.raises(HostFailed, match="the database failed"):
        store.unfinished()
    postgresql.start()
    assert store.unfinished() == []
