"""What can go wrong, named by what a caller does about it.

Every error says what happened, where, and what to do next; `controller` prints these three and exits with `exit_code`.
Anything that is not a RatchetError is a bug; in a step of a run it becomes Unexpected.
"""

from __future__ import annotations

import logging
import traceback
from typing import ClassVar

log = logging.getLogger(__name__)


def printable(text: str) -> str:
    """Text from files and hosts as a terminal may show it: what would steer it is written as an escape."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


class RatchetError(Exception):
    """Base of all expected failures.

    Args:
        what: one sentence: what happened.
        where: the host, or the file with line and field; empty when there is none.
        next_step: what the operator should do or type next.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        step = f"\n  next: {self.next_step}" if self.next_step else ""
        return printable(f"{place}{self.what}{step}")


class BadInput(RatchetError):
    """The operator's input is wrong; nothing was changed (exit 2)."""

    exit_code = 2


class HostFailed(RatchetError):
    """A host or the infrastructure failed for good; the baseline is restored (exit 3)."""

    exit_code = 3


class Unexpected(HostFailed):
    """A fault of ours in a step: the run restores, is sealed and ends as after any failure (exit 3)."""

    traceback = ""


class DatabaseLost(HostFailed):
    """It has not answered for too long; threads still wait for it, and the process leaves them behind (exit 3)."""


class HandEdited(HostFailed):
    """Somebody edited a host by hand: its baseline is live, the edit is kept, and the run leaves it alone (exit 3)."""


class Transient(RatchetError):
    """A failure that may pass by itself; the caller retries with backoff, then turns it into HostFailed (exit 3)."""

    exit_code = 3


class FleetLocked(RatchetError):
    """Another run holds the fleet, or has taken it over: what is another's is left alone (exit 4)."""

    exit_code = 4


class RestoreUnverified(RatchetError):
    """A host could not be shown to be back on its baseline (exit 5): loud, with the host and what to type."""

    exit_code = 5


class Interrupted(RatchetError):
    """The operator stopped the run; the baseline is restored (exit 130)."""

    exit_code = 130


RUN_ENDED = "report it, please, with the run's traceback.txt; the run is at an end"


def unexpected(error: BaseException, where: str, next_step: str = RUN_ENDED) -> Unexpected:
    """A fault of ours as an error that a run, or a command, can end with."""
    if isinstance(error, Unexpected):
        return error
    found = Unexpected(
        f"a fault of Ratchet's own: {type(error).__name__}: {error}"[:1000],
        where=where,
        next_step=next_step,
    )
    log.error("a fault of Ratchet's own in %s", where, exc_info=error)
    found.traceback = "".join(traceback.format_exception(error))
    return found
