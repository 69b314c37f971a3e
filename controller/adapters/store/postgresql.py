"""PostgreSQL that stalls, or whose machine is cut off, is an error within seconds, not a wait without end."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen

CONNECT_SECONDS = 10
# As long as SQLite waits for another writer. The server gives up first: what it ended has not happened.
STATEMENT_SECONDS = 20
ANSWER_SECONDS = 25.0

# libpq's own: a machine that is gone is noticed by whoever has sent something, and by whoever waits.
CONNECTION = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

RV = TypeVar("RV")


class PatientConnection(psycopg.Connection[Any]):
    """A connection that waits ANSWER_SECONDS for each answer.

    A server that is stopped still has its kernel acknowledge what comes, so no setting of TCP's would end the wait.
    """

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, ANSWER_SECONDS if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:
            if timeout is not None:
                raise
            # Closed: what comes late would be taken for the answer to the next question.
            self.close()
            raise psycopg.OperationalError(f"the server has not answered for {ANSWER_SECONDS:.0f} s") from None


def options(url: sa.URL) -> dict[str, int]:
    """What to connect with; what the address says itself goes first."""
    return {name: value for name, value in CONNECTION.items() if name not in url.query}


def limit_waits(engine: sa.Engine) -> None:
    """Give each answer, and each statement of a transaction on the server, its limit."""

    def connect(_dialect: Any, _record: Any, words: list[Any], values: dict[str, Any]) -> Any:
        return PatientConnection.connect(*words, **values)

    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")

    if engine.dialect.driver == "psycopg":
        sa.event.listen(engine, "do_connect", connect)
    sa.event.listen(engine, "begin", begin)
