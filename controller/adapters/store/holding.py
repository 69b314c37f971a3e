"""One run per fleet between machines: a row in the database they share, which its holder renews while it lives.

All times are the database's own clock, so that the clocks of the machines may be as wrong as they like.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import sqlalchemy as sa

from controller.adapters.store.database import Store
from controller.adapters.store.lock import FleetLock, Holder
from controller.adapters.store.tables import generations, holders
from controller.model.errors import FleetLocked, RatchetError
from controller.model.project import Project

HOLD_SECONDS = 60.0
# How often the clock of a hold is looked at; a longer pause between two looks was the process's, not the database's;
# and how long a renewal may take after one.
TICK_SECONDS = 1.0
STOPPED_SECONDS = 5.0
AWAKE_SECONDS = 15.0

log = logging.getLogger(__name__)


class FleetRow:
    """The row of one fleet, as one holder uses it. `name` is FleetLock's: who has it may replace its earlier self."""

    def __init__(self, store: Store, fleet: str, name: str, holder: Holder, *, seconds: float = HOLD_SECONDS) -> None:
        self._store = store
        self._fleet = fleet
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._ours = sa.and_(holders.c.fleet == fleet, holders.c.name == name, holders.c.run_id == holder.run_id)

    def take(self, *, by_force: bool = False) -> Holder | None:
        """Take the row; returns whom it was taken from, if that one had not given it back.

        Raises FleetLocked while another one holds it, unless `by_force`.
        """
        clock = self._store.clock()
        free = sa.or_(holders.c.name == self._name, holders.c.expires <= clock, sa.literal(by_force))
        values = {
            "name": self._name,
            "run_id": self._holder.run_id,
            "pid": self._holder.pid,
            "user": self._holder.user,
            "machine": self._holder.machine,
            "since": self._holder.since,
            "expires": clock + self._seconds,
        }
        while True:
            before = self._read()
            with self._store.transaction() as connection:
                taken = connection.execute(
                    sa.update(holders).where(holders.c.fleet == self._fleet, free).values(**values)
                ).rowcount
            if taken:
                return before[0] if before else None
            if before is None and self._insert(values):
                return None
            held = self._read()
            if held is not None:
                raise self._locked(*held)

    def _insert(self, values: dict[str, object]) -> bool:
        """False when another one was faster."""
        try:
            with self._store.transaction() as connection:
                connection.execute(sa.insert(holders).values(fleet=self._fleet, **values))
        except sa.exc.IntegrityError:
            return False
        return True

    def renew(self) -> bool:
        """Hold it for the whole time again; False when it is another one's by now."""
        with self._store.transaction() as connection:
            expires = self._store.clock() + self._seconds
            return bool(connection.execute(sa.update(holders).where(self._ours).values(expires=expires)).rowcount)

    def release(self) -> None:
        """Give it back, if it is still ours."""
        with self._store.transaction() as connection:
            connection.execute(sa.delete(holders).where(self._ours))

    def _read(self) -> tuple[Holder, float] | None:
        return held_row(self._store, self._fleet)

    def _locked(self, holder: Holder, seconds_left: float) -> FleetLocked:
        return FleetLocked(
            f"fleet {self._fleet} is held by {holder.words()}",
            where=self._fleet,
            next_step=f"wait for it to end; if it is dead, the fleet is free in {max(1, round(seconds_left))} s. "
            f"To end it now: controller rollback --fleet {self._fleet} --take-over",
        )


def held_row(store: Store, fleet: str) -> tuple[Holder, float] | None:
    """Who has the fleet's row, and for how many more seconds (negative: it has run out); None when nobody has."""
    columns = (holders.c.run_id, holders.c.pid, holders.c.user, holders.c.machine, holders.c.since)
    query = sa.select(*columns, holders.c.expires - store.clock()).where(holders.c.fleet == fleet)
    with store.transaction() as connection:
        row = connection.execute(query).first()
    return None if row is None else (Holder(row[0], row[1], row[2], row[3], row[4]), float(row[5]))


def next_generation(store: Store, fleet: str) -> int:
    """A number that no process before has had for this fleet, and that is higher than all of theirs."""
    ours = generations.c.fleet == fleet
    count = sa.update(generations).where(ours).values(generation=generations.c.generation + 1)
    while True:
        with store.transaction() as connection:
            if connection.execute(count).rowcount:
                return int(connection.execute(sa.select(generations.c.generation).where(ours)).scalar_one())
        # Where another one is faster to begin, its row is counted up.
        with suppress(sa.exc.IntegrityError), store.transaction() as connection:
            connection.execute(sa.insert(generations).values(fleet=fleet, generation=0))


class FleetHold:
    """A context manager: the lock of this machine, then the row, renewed by a thread until the block ends.

    Args:
        lost: called once, from the thread, with what happened, when the row is another one's or cannot be renewed in
            time. The work must then come to an end.
        tell: called with a sentence when the row was taken over from a dead holder.
        by_force: take the row also from a living holder of another machine.

    Raises FleetLocked.
    """

    def __init__(
        self,
        project: Project,
        store: Store,
        fleet: str,
        *,
        run_id: str,
        since: str,
        lost: Callable[[str], None],
        tell: Callable[[str], None],
        by_force: bool = False,
        seconds: float = HOLD_SECONDS,
    ) -> None:
        self._lock = FleetLock(project, fleet, run_id=run_id, since=since)
        self.store = store
        self.run_id = run_id
        self._fleet = fleet
        self._lost = lost
        self._tell = tell
        self._by_force = by_force
        self._seconds = seconds
        self._ending = threading.Event()
        self._losing = threading.Lock()
        self._trouble = "the database does not answer"
        self.generation = 0
        """Which process of the run this is: higher for each that takes the fleet."""
        self.taken_over = False

    @property
    def name(self) -> str:
        """This holder's name, on hosts too."""
        return self._lock.name

    def __enter__(self) -> FleetHold:
        self._lock.__enter__()
        try:
            self._row = FleetRow(self.store, self._fleet, self._lock.name, self._lock.held_by, seconds=self._seconds)
            asked = time.monotonic()
            before = self._row.take(by_force=self._by_force)
            self.generation = next_generation(self.store, self._fleet)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        if before is not None and before.run_id != self._lock.held_by.run_id:
            self._tell(f"fleet {self._fleet}: taken over from {before.words()}")
        log.info("fleet %s is held as %s, generation %d", self._fleet, self._lock.held_by.run_id, self.generation)
        self._renewed = asked
        self._thread = threading.Thread(target=self._renew, name="fleet-row", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="fleet-row-watch", daemon=True).start()
        return self

    def _renew(self) -> None:
        while not self._ending.wait(self._seconds / 4):
            asked = time.monotonic()
            try:
                if not self._row.renew():
                    held = held_row(self.store, self._fleet)
                    self.taken_over = True
                    self._lose(f"fleet {self._fleet} was taken over by {held[0].words() if held else 'somebody'}")
                    return
                self._renewed = asked
            except RatchetError as error:
                self._trouble = error.what
                log.warning("fleet %s: its row could not be renewed: %s", self._fleet, error.what)

    def _watch(self) -> None:
        """A renewal that hangs must not keep the work from its end.

        A process that was stopped for a while (Ctrl-Z, a frozen container) asks first whether the fleet is still its.
        """
        tick, patient_until = time.monotonic(), 0.0
        while not self._ending.wait(min(TICK_SECONDS, self._seconds / 4)):
            now = time.monotonic()
            if now - tick > STOPPED_SECONDS:
                patient_until = now + min(AWAKE_SECONDS, self._seconds)
            tick = now
            if now - self._renewed >= self._seconds and now >= patient_until:
                self._lose(f"fleet {self._fleet} could not be held for {self._seconds:.0f} s: {self._trouble}")
                return

    def _lose(self, why: str) -> None:
        with self._losing:
            if not self._ending.is_set():
                self._ending.set()
                self._lost(why)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(timeout=self._seconds)
        try:
            self._row.release()
        except RatchetError as failure:
            self._tell(f"fleet {self._fleet} is free in {self._seconds:.0f} s: {failure.what}")
        finally:
            self._lock.__exit__(kind, error, trace)
            log.info("fleet %s is not held any more", self._fleet)
