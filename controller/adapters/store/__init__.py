"""What Ratchet remembers between commands: SQLite in `.ratchet/`, or PostgreSQL by RATCHET_DATABASE_URL."""

from controller.adapters.store.commits import commits_of, forget_open_commits, open_commits, read_commit, record_commit
from controller.adapters.store.database import Store, database_url
from controller.adapters.store.holding import FleetHold, held_row
from controller.adapters.store.lock import FleetLock, Holder

__all__ = [
    "FleetHold",
    "FleetLock",
    "Holder",
    "Store",
    "commits_of",
    "database_url",
    "forget_open_commits",
    "held_row",
    "open_commits",
    "read_commit",
    "record_commit",
]
