"""Runs and recorded baselines, through SQLAlchemy Core. The run directories hold the evidence; this holds the index."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import sqlalchemy as sa

from controller.adapters.files.private_state import state_folder
from controller.adapters.patience import spread
from controller.adapters.secrets import DATABASE, is_secret, masked, read_secret, remember
from controller.adapters.store import postgresql, schema
from controller.adapters.store.tables import audit_heads, baselines, commits, quarantine, runs
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project

SQLITE_WAIT_SECONDS = 20
BACKOFF_SECONDS = (0.2, 1.0, 3.0)
# The day of 1970-01-01 as SQLite counts days.
UNIX_EPOCH_DAY = 2440587.5
# A transaction that takes longer has waited: for another writer, or for the server.
WAITED_SECONDS = 1.0

log = logging.getLogger(__name__)


def database_url(project: Project) -> str:
    """RATCHET_DATABASE_URL, or by a file, descriptor or command as the token; else an SQLite file in the project's
    state folder (created, 0700). Raises BadInput.
    """
    secret = read_secret(os.environ, DATABASE)
    if secret is not None:
        if not secret.text:
            raise BadInput("the database's address is empty", where=secret.source, next_step="set it, or unset it")
        # The driver that we ship, whatever SQLAlchemy takes for the default.
        return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", secret.text)
    # Not by hand: a `?` in the path would begin the options.
    return sa.URL.create("sqlite", database=str(state_folder(project) / "ratchet.db")).render_as_string()


@dataclass(frozen=True)
class Quarantined:
    """Why a host was left out, by which run, since when."""

    host: str
    why: str
    run_id: str
    since: str


@dataclass(frozen=True)
class Baseline:
    """The configuration last confirmed on a host, and the run that confirmed it."""

    host: str
    configuration: str
    run_id: str
    recorded_at: str


class Store:
    """The index. Every write is one transaction; writing the same thing twice changes nothing.

    Raises BadInput when the database cannot be opened, HostFailed when it fails later.
    """

    def __init__(self, url: str) -> None:
        self._hidden = _passwords(url)
        _remember(url)
        try:
            self._engine = _engine(sa.make_url(url))
            self.upgraded = schema.upgrade(self._engine, _shown(url))
            """A sentence for the operator, where opening it has brought an older database up to date."""
        except schema.NotUpgradedError as error:
            raise self._not_opened(f"{error}: {self._told(error.cause)}", url) from None
        except (sa.exc.SQLAlchemyError, ImportError, ValueError) as error:
            raise self._not_opened(f"the database cannot be opened: {self._told(error)}", url) from None

    def _not_opened(self, what: str, url: str) -> BadInput:
        next_step = f"check {DATABASE}, or that .ratchet/ is writable and its disk is not full"
        return BadInput(what, where=_shown(url), next_step=next_step)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction; a violated constraint is passed on. Raises HostFailed when the database fails.

        A connection that is refused or a database that is locked is waited for before the block begins.
        """
        started = time.monotonic()
        try:
            with self._connected() as connection, connection.begin():
                yield connection
        except sa.exc.IntegrityError:
            raise
        except sa.exc.SQLAlchemyError as error:
            raise HostFailed(
                f"the database failed: {self._told(error)}",
                next_step="free its disk or lock, or start it, then run the command again",
            ) from None
        finally:
            if (seconds := time.monotonic() - started) > WAITED_SECONDS:
                log.info("a transaction took %.1f s", seconds)

    def _connected(self) -> sa.Connection:
        for pause in spread(BACKOFF_SECONDS):
            try:
                return self._engine.connect()
            except sa.exc.OperationalError as error:
                log.warning("no connection to the database, again in %.1f s: %s", pause, self._told(error))
                time.sleep(pause)
        return self._engine.connect()

    def clock(self) -> sa.ColumnElement[float]:
        """The database's own time in seconds, for use in a statement."""
        if self._engine.dialect.name == "postgresql":
            return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float(53))
        return (sa.func.julianday("now") - UNIX_EPOCH_DAY) * 86400.0

    def upsert(self, table: sa.Table, key: dict[str, str], values: dict[str, str]) -> None:
        """Update the row of that key, or insert it. Raises HostFailed."""
        condition = sa.and_(*(table.c[name] == value for name, value in key.items()))
        update = sa.update(table).where(condition).values(**values)
        try:
            with self.transaction() as connection:
                if connection.execute(update).rowcount == 0:
                    connection.execute(sa.insert(table).values(**key, **values))
        except sa.exc.IntegrityError:
            # Another controller was faster to insert it.
            with self.transaction() as connection:
                connection.execute(update)

    def record_run(self, *, run_id: str, fleet: str, status: str, started_at: str, result: str) -> None:
        """Insert or update one run; `result` is the JSON of RunResult."""
        self.upsert(
            runs, {"run_id": run_id}, {"fleet": fleet, "status": status, "started_at": started_at, "result": result}
        )

    def unfinished(self) -> list[tuple[str, str, str]]:
        """(run_id, fleet, started_at) of the runs that were never sealed, oldest first."""
        query = sa.select(runs.c.run_id, runs.c.fleet, runs.c.started_at).where(runs.c.status == "running")
        with self.transaction() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query.order_by(runs.c.started_at))]

    def record_baseline(self, *, fleet: str, host: str, configuration: str, run_id: str, recorded_at: str) -> None:
        """Remember what was last confirmed on a host."""
        self.upsert(
            baselines,
            {"fleet": fleet, "host": host},
            {"configuration": configuration, "run_id": run_id, "recorded_at": recorded_at},
        )

    def baselines(self, fleet: str) -> dict[str, Baseline]:
        """Host -> its recorded baseline."""
        query = sa.select(baselines).where(baselines.c.fleet == fleet)
        with self.transaction() as connection:
            rows = connection.execute(query).mappings().all()
        return {
            row["host"]: Baseline(row["host"], row["configuration"], row["run_id"], row["recorded_at"]) for row in rows
        }

    def forget(self, fleet: str, hosts: Collection[str]) -> None:
        """Forget what was confirmed on these hosts, and who was quarantined: they are gone.

        What was under way goes with the fleet's last one.
        """
        with self.transaction() as connection:
            for table in (baselines, quarantine):
                connection.execute(sa.delete(table).where(table.c.fleet == fleet, table.c.host.in_(hosts)))
            left = connection.execute(sa.select(baselines.c.host).where(baselines.c.fleet == fleet)).first()
            if left is None:
                connection.execute(sa.delete(commits).where(commits.c.fleet == fleet))

    def quarantine(self, *, fleet: str, host: str, why: str, run_id: str, since: str) -> None:
        """Remember that a host is left out."""
        self.upsert(quarantine, {"fleet": fleet, "host": host}, {"why": why, "run_id": run_id, "since": since})

    def quarantined(self, fleet: str) -> dict[str, Quarantined]:
        """Host -> why it is left out."""
        query = sa.select(quarantine).where(quarantine.c.fleet == fleet).order_by(quarantine.c.host)
        with self.transaction() as connection:
            rows = connection.execute(query).mappings().all()
        return {row["host"]: Quarantined(row["host"], row["why"], row["run_id"], row["since"]) for row in rows}

    def end_quarantine(self, *, fleet: str, host: str) -> None:
        """The host takes part again."""
        with self.transaction() as connection:
            connection.execute(sa.delete(quarantine).where(quarantine.c.fleet == fleet, quarantine.c.host == host))

    def record_audit_head(self, log: str, *, entries: int, digest: str) -> None:
        """Remember how long that audit log is, and the hash of its last entry."""
        self.upsert(audit_heads, {"log": log}, {"entries": str(entries), "digest": digest})

    def audit_head(self, log: str) -> tuple[int, str] | None:
        """(entries, hash of the last) as recorded; None before the first entry."""
        query = sa.select(audit_heads.c.entries, audit_heads.c.digest).where(audit_heads.c.log == log)
        with self.transaction() as connection:
            row = connection.execute(query).first()
        return None if row is None else (int(row[0]), str(row[1]))

    def close(self) -> None:
        self._engine.dispose()

    def _told(self, error: Exception) -> str:
        """The error's first line, without what the database's address keeps secret."""
        return masked((str(error) or type(error).__name__).splitlines()[0], *self._hidden)


def _engine(url: sa.URL) -> sa.Engine:
    engine = _patient(url)
    sa.event.listen(engine, "before_cursor_execute", _with_storable_words, retval=True)
    return engine


def _patient(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        # It waits that long for another writer.
        return sa.create_engine(url, connect_args={"timeout": SQLITE_WAIT_SECONDS}, hide_parameters=True)
    # A connection that the server has closed is not used again.
    options = postgresql.options(url)
    engine = sa.create_engine(url, connect_args=options, pool_pre_ping=True, hide_parameters=True)
    postgresql.limit_waits(engine)
    return engine


def _with_storable_words(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    return statement, _storable(parameters)


def _storable(value: Any) -> Any:
    """Words of hosts may hold what no database takes: bytes that were no UTF-8 (lone surrogates), or NUL."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {name: _storable(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_storable, value))
    return value


def _passwords(url: str) -> list[str]:
    """What may be secret in an address: its password, as it is written and as it is meant, and its options."""
    try:
        parts = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return [url, *re.split(r"[/@:?&=]+", url)[1:]]
    password = str(parts.password or "")
    options = [value for values in parts.query.values() for value in ([values] if isinstance(values, str) else values)]
    return [url, password, quote(password, safe=""), quote_plus(password), *options]


def _remember(url: str) -> None:
    """For logs, which have other words in them than errors: only what is secret for sure."""
    try:
        parts = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return
    options = [str(value) for name, value in parts.query.items() if is_secret(name)]
    remember(str(parts.password or ""), *options)


def _shown(url: str) -> str:
    """The address for people: without password and options; the variable's name when it cannot be parsed."""
    try:
        return sa.engine.make_url(url).set(query={}).render_as_string(hide_password=True)
    except (sa.exc.ArgumentError, ValueError):
        return DATABASE
