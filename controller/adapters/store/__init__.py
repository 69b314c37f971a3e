"""What Ratchet remembers between commands: SQLite in `.ratchet/`, or PostgreSQL by RATCHET_DATABASE_URL."""

from controller.adapters.store.commits import commits_of, forget_open_commits, open_commits, read_commit, record_commit
from controller.adapters.store.database import Store, database_url
from controller.adapters.store.holding import FleetHold, held_row
from controller.adapters.store.lock import FleetLock, Holder
from controller.adapters.store.runs import (
    RecordedTrial,
    recent_results,
    record_plan,
    record_result,
    trials_on_record,
)

__all__ = [
    "FleetHold",
    "FleetLock",
    "Holder",
    "RecordedTrial",
    "Store",
    "commits_of",
    "database_url",
    "forget_open_commits",
    "held_row",
    "open_commits",
    "read_commit",
    "recent_results",
    "record_commit",
    "record_plan",
    "record_result",
    "trials_on_record",
]
