"""SQLite as DBOS needs it, also where the system's is older."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import sqlalchemy as sa


class Connection(sqlite3.Connection):
    """One that knows `unixepoch('subsec')`, the seconds since 1970 to the millisecond.

    Under Python 3.12 and later DBOS asks for them in the defaults of its tables, and SQLite before 3.42 answers NULL.
    Such a table is used under an older Python too: so it is SQLite's age that decides, not Python's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self._knows_unixepoch():
            self.create_function("unixepoch", 1, lambda _modifier: round(time.time(), 3))

    def _knows_unixepoch(self) -> bool:
        try:
            (seconds,) = self.execute("SELECT unixepoch('subsec')").fetchone()
        except sqlite3.OperationalError:
            return False
        return seconds is not None


def engine_options(database_url: str) -> dict[str, Any]:
    """What DBOS is to give SQLAlchemy for its engine; nothing for another database."""
    if sa.make_url(database_url).get_backend_name() != "sqlite":
        return {}
    return {"connect_args": {"factory": Connection}}
