"""The one way to change something and account for it: intent before, outcome after.

A process that is killed in between leaves an intent without an outcome, which `controller audit` shows.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from controller.adapters.audit.entries import BEGUN, FAILED, INTERRUPTED, OK
from controller.adapters.audit.log import AuditLog
from controller.model.errors import Interrupted, RatchetError


@contextmanager
def signals_wait() -> Iterator[None]:
    """A signal that comes in the block is heeded at its end: who is interrupted knows what it has written."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    came: list[int] = []
    known = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in known if signal.getsignal(number) is not None]
    before = {number: signal.signal(number, lambda which, _: came.append(which)) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for which in came:
            signal.raise_signal(which)


@dataclass
class Outcome:
    """What came of a change, for whoever carries it out to fill in; an error that ends it is filled in by itself."""

    hosts: list[str]
    what: str = "done"
    state: str = OK
    evidence: dict[str, Any] = field(default_factory=dict)

    def failed(self, what: str) -> None:
        """The change was not carried out, or not as it was meant."""
        self.state, self.what = FAILED, what

    def ended_by(self, error: BaseException) -> None:
        """An error of ours in its words. Any other is a bug, whose words may hold a secret: its kind is enough."""
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        self.state = INTERRUPTED if interrupted else FAILED
        if isinstance(error, RatchetError):
            self.what = f"{error.where}: {error.what}" if error.where else error.what
        else:
            self.what = "by a signal" if interrupted else f"ended by {type(error).__name__}"


@dataclass(frozen=True)
class Accounts:
    """The accounts of what is done to one fleet.

    Args:
        now: the time, UTC, ISO 8601.
        tell: called with a sentence when an entry is missing in the log.
    """

    log: AuditLog
    fleet: str
    now: Callable[[], str]
    tell: Callable[[str], None]

    @contextmanager
    def account(
        self, action: str, hosts: list[str], why: str, evidence: dict[str, Any] | None = None, *, always: bool = False
    ) -> Iterator[Outcome]:
        """Write that the block is about to change the hosts, and at its end, however it ends, what came of it.

        Args:
            always: do it also where the log cannot be written: a way back waits for no disk.

        Raises HostFailed, with the block not begun, when the log cannot be written. An outcome that cannot be written
        is told, and changes nothing: what is done is done, and the log shows that it was begun.
        """
        outcome = Outcome(hosts)
        began: int | None = None
        try:
            with signals_wait():
                began = self._write(action, hosts, why, evidence or {}, state=BEGUN, must=not always)
            yield outcome
        except BaseException as error:
            outcome.ended_by(error)
            raise
        finally:
            if began is not None:
                with signals_wait():
                    self._write(action, outcome.hosts, outcome.what, outcome.evidence, state=outcome.state, began=began)

    def _write(
        self,
        action: str,
        hosts: list[str],
        why: str,
        evidence: dict[str, Any],
        *,
        state: str,
        began: int = 0,
        must: bool = False,
    ) -> int:
        """Returns the entry's number; 0 when there is none."""
        try:
            return self.log.record(
                at=self.now(),
                action=action,
                fleet=self.fleet,
                hosts=hosts,
                why=why,
                evidence=evidence,
                state=state,
                began=began,
            )
        except RatchetError as error:
            if must:
                raise
            self.tell(f"{action} ({state}: {why}) is missing in the audit log: {error.what}")
            return 0
