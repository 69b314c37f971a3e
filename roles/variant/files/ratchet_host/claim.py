"""The claim: which controller's run has this host. `claim` and `release`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from ratchet_host import paths, processes
from ratchet_host.errors import Refused
from ratchet_host.files import write_atomically
from ratchet_host.locks import Lock
from ratchet_host.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIME = "%Y-%m-%dT%H:%M:%SZ"


class Claim:
    """A run's word that it is at work on this host. It ends by itself: with its time (suspended time counts), or a
    reboot. It keeps other controllers away; it is no lease, and no command of a person asks for it."""

    def __init__(self, run: str, holder: str, since: str, seconds: int, generation: int) -> None:
        self.run = run
        self.holder = holder
        self.since = since
        self.seconds = seconds
        self.generation = generation
        self.until = processes.boot_clock() + seconds
        # A session's heartbeat speaks for the run no longer than this; its controller has to claim anew.
        self.latest = processes.boot_clock() + paths.LONGEST_LEASE

    @staticmethod
    def path() -> Path:
        return paths.RUN / "claim.json"

    @staticmethod
    def read() -> Claim | None:
        """The claim that holds now; None when there is none, or when it has run out."""
        try:
            told = json.loads(Claim.path().read_bytes())
            claim = Claim(
                str(told["run"]),
                str(told["holder"]),
                str(told["since"]),
                int(told["seconds"]),
                int(told["generation"]),
            )
            claim.until, claim.latest = float(told["until"]), float(told["latest"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return claim if 0 < claim.left <= claim.seconds else None

    @property
    def left(self) -> float:
        return self.until - processes.boot_clock()

    def write(self) -> None:
        document = {
            name: getattr(self, name) for name in ("run", "holder", "since", "seconds", "generation", "until", "latest")
        }
        write_atomically(Claim.path(), json.dumps(document).encode(), 0o600)

    def extend(self) -> None:
        self.until = min(processes.boot_clock() + self.seconds, self.latest)
        self.write()

    def document(self) -> dict[str, Any]:
        return {"run": self.run, "holder": self.holder, "since": self.since, "seconds_left": round(self.left, 1)}


@contextlib.contextmanager
def claiming() -> Iterator[Claim | None]:
    """Hold the lock that every change of the claim takes; gives the claim that holds now."""
    lock = Lock("claim.lock")
    if not lock.take(10):
        raise Refused("another ratchet-host is at work on this host's claim; try again in a moment")
    try:
        yield Claim.read()
    finally:
        lock.free()


class EndedRuns:
    """Runs that a take-over has ended, by whom, and until when they are refused: long enough to learn it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str]] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
            told = json.loads((paths.RUN / "ended.json").read_bytes())
            now = processes.boot_clock()
            self._known = {str(run): (float(until), str(by)) for run, (until, by) in told.items() if until > now}

    def __contains__(self, run: object) -> bool:
        return run in self._known

    def by(self, run: str) -> str:
        return self._known[run][1]

    def add(self, run: str, seconds: int, by: str) -> None:
        self._known[run] = (processes.boot_clock() + seconds, by)
        write_atomically(paths.RUN / "ended.json", json.dumps(self._known).encode(), 0o600)


class Fence:
    """For whom a command speaks: a controller's for its run, by the generation of its claim; a person's for nobody."""

    def __init__(self, run_name: str | None = None, generation: int | None = None) -> None:
        self.run = run_name
        self.generation = generation

    def check(self) -> None:
        """Under the lock of a change, at the last moment before it: raises Refused when the host is another's now."""
        if self.run is None:
            return
        held = Claim.read()
        ended = EndedRuns()
        if self.run in ended:
            raise Refused(
                f"run {self.run} was taken over by {ended.by(self.run)}, and is at an end; nothing was changed"
            )
        if held is None or held.run != self.run:
            raise Refused(f"run {self.run} has no claim on this host any more{told_of(held)}; nothing was changed")
        if self.generation not in {None, held.generation}:
            raise Refused(
                f"run {self.run} goes on in another process since (generation {held.generation}, "
                f"this is {self.generation}); nothing was changed"
            )


def told_of(held: Claim | None) -> str:
    return f": it is run {held.run}'s, of {held.holder}, since {held.since}" if held else ""


def command_claim(
    holder: str, run_name: str, seconds: int, end: str | None = None, generation: int = 0
) -> dict[str, Any]:
    """Claim the host, or renew. A holder makes one run at a time: its earlier run is over, and gives way.

    `end`: a run that gives way too, and is refused for `seconds` from now on.
    """
    with claiming() as held:
        ended = EndedRuns()
        if run_name in ended:
            problem = f"run {run_name} was taken over by {ended.by(run_name)}, and is at an end"
        elif held is not None and held.run not in {run_name, end} and held.holder != holder:
            problem = f"claimed by run {held.run} of {held.holder} since {held.since}"
        elif held is not None and held.run == run_name and held.generation > generation:
            problem = f"run {run_name} goes on in another process since (generation {held.generation})"
        else:
            problem = ""
        if problem:
            return {"ok": False, "error": problem, "claim": held.document() if held else None}
        if end:
            ended.add(end, seconds, f"run {run_name}, of {holder}")
        same = held if held is not None and held.run == run_name else None
        replaced = held if same is None else None
        since = same.since if same else time.strftime(TIME, time.gmtime())
        claim = Claim(run_name, holder, since, seconds, generation)
        claim.write()
    if same is None:
        log(f"claimed by run {run_name} of {holder}")
    return {
        "ok": True,
        "changed": same is None,
        "claim": claim.document(),
        "replaced": replaced.document() if replaced else None,
    }


def command_release(run_name: str, generation: int | None = None) -> dict[str, Any]:
    """End that run's claim; another's stays, and that of a later process of the same run."""
    with claiming() as held:
        ours = held is not None and held.run == run_name and generation in {None, held.generation}
        if ours:
            Claim.path().unlink(missing_ok=True)
            log(f"run {run_name} released its claim")
    return {"ok": True, "changed": ours, "claim": held.document() if held and not ours else None}


def extend_claim(run_name: str | None) -> None:
    """A session that is renewed shows that its run lives. Another run's claim is not its business."""
    claim = Claim.read()
    # Every heartbeat asks; once in a while is enough.
    if claim is not None and run_name in {None, claim.run} and claim.left < claim.seconds * 0.8:
        with claiming() as held:
            if held is not None and run_name in {None, held.run}:
                held.extend()
