"""What the steps of a run need from outside: passed in, so that tests choose the clock, the hosts and the observer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from controller.adapters.audit import Accounts, AuditLog, Outcome
from controller.adapters.store import Store
from controller.model.errors import FleetLocked
from controller.model.events import Notice, Observer
from controller.model.fleet import Fleet
from controller.model.project import Project

# For who has stopped a run: it is sealed, and what it had not measured is not gone on with.
RUN_AGAIN = "run the command again for what it has not measured; this run is at an end"


class StopSignal:
    """How a run is asked to end: once, finish the block and restore; twice, restore now."""

    def __init__(self) -> None:
        self._count = 0
        self.why = "stopped by the operator"
        self.taken_over = False
        # A commit that a host has confirmed is finished, whoever asks for what.
        self.committing = False

    def request(self, why: str = "", *, taken_over: bool = False) -> int:
        """Count one more request (safe in a signal handler); returns how many there are now."""
        self._count += 1
        self.why = why or self.why
        self.taken_over = self.taken_over or taken_over
        return self._count

    @property
    def requested(self) -> bool:
        return self._count >= 1

    @property
    def at_once(self) -> bool:
        return self._count >= 2


class HostClaims(Protocol):
    """The work's claims on its hosts, and how its commands speak for them (fleet/claims.py)."""

    @property
    def document(self) -> dict[str, Any] | None: ...

    @property
    def generation(self) -> int: ...

    @property
    def options(self) -> list[str]: ...

    @property
    def variables(self) -> dict[str, str]: ...

    @property
    def everywhere(self) -> bool: ...

    def held(self, *, by_force: bool = False) -> AbstractContextManager[None]: ...

    def renew(self, names: Collection[str]) -> None: ...

    def still_ours(self, names: Collection[str]) -> list[str]: ...

    def came_late(self, said: Mapping[str, str]) -> dict[str, str]: ...

    def refused(self, said: Mapping[str, str]) -> FleetLocked | None: ...

    def probed(self, names: Collection[str]) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class RunContext:
    """One run's surroundings."""

    project: Project
    fleet: Fleet
    store: Store
    audit: AuditLog
    observer: Observer
    clock: Callable[[], datetime]
    claims: HostClaims
    stop: StopSignal = field(default_factory=StopSignal)

    def run_directory(self, run_id: str) -> Path:
        return self.project.runs / run_id

    def now(self) -> str:
        """The time in UTC, ISO 8601 to the second."""
        return self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")

    def accounted(
        self, action: str, hosts: list[str], why: str, evidence: dict[str, Any] | None = None, *, always: bool = False
    ) -> AbstractContextManager[Outcome]:
        """Account for a change that the block makes (adapters/audit/accounts.py). Raises HostFailed."""

        def tell(text: str) -> None:
            self.observer(Notice(level="warning", text=text))

        accounts = Accounts(self.audit, self.fleet.name, self.now, tell)
        return accounts.account(action, hosts, why, evidence, always=always)
