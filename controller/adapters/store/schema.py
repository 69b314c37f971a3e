"""The version of the database's tables: an older database is upgraded when it is opened, a newer one is refused.

A database without a version is of before version 1, whatever tables it has. Tables that are missing are made as they
are now, so each step looks whether it has anything left to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import sqlalchemy as sa

from controller import __version__
from controller.adapters.store.tables import commits, metadata, runs, schema, trials
from controller.adapters.store.trial_rows import trial_rows
from controller.model.errors import BadInput

# Any number that no other program takes for a lock of its own.
UPGRADE_LOCK = 0x7261746368


def fence_commits(connection: sa.Connection) -> None:
    """Version 1: commits know the generation of whoever has written them."""
    _add_column(connection, commits.c.generation, "INTEGER NOT NULL DEFAULT 0")


def tell_trials(connection: sa.Connection) -> None:
    """Version 2: runs keep their plan, and a row for each trial."""
    _add_column(connection, runs.c.plan, "TEXT NOT NULL DEFAULT '{}'")
    recorded = connection.execute(sa.select(runs.c.run_id, runs.c.fleet, runs.c.result)).all()
    for run_id, fleet, result in recorded:
        try:
            rows = trial_rows(run_id, fleet, json.loads(result))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # a damaged document stays what it is
        connection.execute(sa.delete(trials).where(trials.c.run_id == run_id))
        if rows:
            connection.execute(sa.insert(trials), rows)


# Step n leads to version n.
STEPS: tuple[Callable[[sa.Connection], None], ...] = (fence_commits, tell_trials)


class NotUpgradedError(Exception):
    """An older database is as it was."""

    def __init__(self, version: int, cause: sa.exc.SQLAlchemyError) -> None:
        super().__init__(f"the database is of version {version}, and could not be upgraded to {len(STEPS)}")
        self.cause = cause


def upgrade(engine: sa.Engine, shown: str) -> str:
    """Bring the tables to the newest version, in one transaction; a sentence when an older database was upgraded.

    `shown`: the database's address for people. Raises BadInput for a newer database, NotUpgradedError, SQLAlchemyError.
    """
    with engine.connect() as connection:
        version, is_new = _version(connection, shown), not sa.inspect(connection).has_table(runs.name)
    if version == len(STEPS):
        return ""
    try:
        with engine.connect() as connection:
            _take_turn(connection)
            # Two controllers that start at once: the other one may have done it meanwhile.
            version = _version(connection, shown)
            if version == len(STEPS):
                return ""
            metadata.create_all(connection)
            for step in STEPS[version:]:
                step(connection)
            connection.execute(sa.delete(schema))
            connection.execute(sa.insert(schema).values(version=len(STEPS), written_by=__version__))
            connection.commit()
    except sa.exc.SQLAlchemyError as error:
        if is_new:
            raise
        raise NotUpgradedError(version, error) from error
    return "" if is_new else f"the database {shown} was upgraded from version {version} to {len(STEPS)}"


def _version(connection: sa.Connection, shown: str) -> int:
    """0 before the first one. Raises BadInput."""
    if not sa.inspect(connection).has_table(schema.name):
        return 0
    row = connection.execute(sa.select(schema.c.version, schema.c.written_by)).first()
    if row is None:
        return 0
    if row.version > len(STEPS):
        raise BadInput(
            f"the database is of version {row.version}, written by Ratchet {row.written_by}; this is Ratchet "
            f"{__version__}, which knows versions up to {len(STEPS)}",
            where=shown,
            next_step=f"use Ratchet {row.written_by} or newer, or a copy of the database from before its upgrade",
        )
    return int(row.version)


def _take_turn(connection: sa.Connection) -> None:
    """Begin the transaction, alone: who upgrades at the same time waits for its end."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
    else:
        # Of itself the driver begins none before the first row is written, and would keep each table that it makes.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _add_column(connection: sa.Connection, column: sa.Column[int] | sa.Column[str], kind: str) -> None:
    table = column.table.name
    if all(known["name"] != column.name for known in sa.inspect(connection).get_columns(table)):
        connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {column.name} {kind}"))
