"""What a fault is: injected at a stated moment of a real run, and what must be so afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.bay import Bay, BrokenHost
from tests.faults.live_run import LiveRun

LEASE = 10
# The longest time back to the baseline: where the controller or the session lives to do it, and where the lease must.
AT_ONCE = 10.0
BY_LEASE = LEASE + 5.0
# What is promised where everything is against it.
PROMISED = LEASE + 10.0

# How long a run may take to end after the fault.
PATIENCE = 180.0

KILLED = -9

# What stands in the table beside the faults.
AFTERWARDS = "after each group: resume, and an ordinary run"
INTERRUPTED = 130


@dataclass(frozen=True)
class Moment:
    """A point in a run: `reached` is asked every few milliseconds."""

    name: str
    reached: Callable[[LiveRun], bool]


@dataclass
class Scene:
    """Where one fault plays."""

    bay: Bay
    run: LiveRun
    rng: random.Random
    since: float = field(default_factory=time.monotonic)

    @property
    def host(self) -> BrokenHost:
        """The host that is broken; the fleet's other one is left alone."""
        return self.bay.hosts[0]

    def restart_clock(self) -> None:
        """Count the time back to the baseline from now: power or network have just come back."""
        self.since = time.monotonic()

    def count_from_boot(self, after: float) -> None:
        """Count it from where the host could act: how long it boots until then is its machine's affair."""
        self.since = self.host.booted(after)


def nothing(_scene: Scene) -> None:
    """The default of `mend` and `prepare`."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: its row in the table of docs/safety.md.
        moment: when in the run it strikes.
        exits: exit codes that the run may end with; -9 when the fault kills the controller.
        says: regular expression that the explanation must match: the controller's messages, the verdict's message and
            notes, and after a kill `controller runs`.
        seconds: the longest time in which every host must be back on its baseline. None: the trial must survive the
            fault, and its baseline is looked at when the run has ended.
        experiment: which of `experiments.py` the run is about.
        goes_on: the run is the resumption of what an earlier fault broke off, where there is one.
        alone: only the broken host's time counts: the controller cannot tell silence from a slow block, and measures on
            the others until its patience has ended. When the run has ended, all hosts are looked at as ever.
        edited: somebody's edit is part of it: told as drift until it is mended, and no hindrance to the baseline.
        rolls_back: what is broken is a `rollback --before` of what `prepare` has kept, not a run.
        agrees: whatever it ends with, record, hosts and settings agree, if need be after the next command.
        patience: seconds that the run may take to end after the fault.
        prepare: before the run starts. mend: after the hosts are back, or were given up.
    """

    name: str
    group: str
    moment: Moment
    inject: Callable[[Scene], None]
    exits: frozenset[int]
    says: str
    seconds: float | None = AT_ONCE
    experiment: str = "long"
    goes_on: bool = False
    alone: bool = False
    edited: bool = False
    rolls_back: bool = False
    agrees: bool = False
    patience: float = PATIENCE
    prepare: Callable[[Bay], None] = lambda _bay: None
    mend: Callable[[Scene], None] = nothing


@dataclass(frozen=True)
class Outcome:
    """What came of one injection. `problems` is empty when every check held."""

    fault: str
    group: str
    problems: list[str]
    seconds: float | None
    injected: bool = True

    @property
    def passed(self) -> bool:
        return not self.problems
