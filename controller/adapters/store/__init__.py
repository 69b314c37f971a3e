"""What Ratchet remembers between commands: SQLite in `.ratchet/`, or PostgreSQL by RATCHET_DATABASE_URL."""

from controller.adapters.store.commits import (
    commits_of,
    count_ended_rollbacks,
    forget_ended_rollbacks,
    forget_open_commits,
    open_commits,
    read_commit,
    record_commit,
)
from controller.adapters.store.database import Store, database_url
from controller.adapters.store.holding import FleetHold, held_row
from controller.adapters.store.lock import FleetLock, Holder
from controller.adapters.store.runs import (
    RecordedRun,
    RecordedTrial,
    forget_runs,
    recent_results,
    record_plan,
    record_result,
    runs_on_record,
    trials_on_record,
)

__all__ = [
    "FleetHold",
    "FleetLock",
    "Holder",
    "RecordedRun",
    "RecordedTrial",
    "Store",
    "commits_of",
    "count_ended_rollbacks",
    "database_url",
    "forget_ended_rollbacks",
    "forget_open_commits",
    "forget_runs",
    "held_row",
    "open_commits",
    "read_commit",
    "recent_results",
    "record_commit",
    "record_plan",
    "record_result",
    "runs_on_record",
    "trials_on_record",
]
