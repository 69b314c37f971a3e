"""Inject faults into whole runs on lab hosts: `python -m tests.faults --help`, or `make faults`."""

from __future__ import annotations

import argparse
import json
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.lab_fleet import CHECKOUT
from controller.lab.daemon import Lab
from tests.faults import table
from tests.faults.bay import Bay
from tests.faults.catalogue import faults, one_of_each
from tests.faults.exercise import exercise, finish
from tests.faults.fault import AFTERWARDS, LEASE, Fault, Outcome
from tests.faults.live_run import kill_all
from tests.faults.switches import switch_back_and_forth

LAB = "faults"
SAYING = threading.Lock()
STOPPING = threading.Event()


def say(*lines: str) -> None:
    with SAYING:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


@contextmanager
def provisioned(root: Path, *, bays: int, hosts: int, keep: bool) -> Iterator[list[Bay]]:
    """Fleets in a lab of their own; both are deleted at the end unless they are kept for the next call."""
    lab = Lab(LAB, root / "lab")
    try:
        access = lab.up(images=["debian-12"])
        found = [
            Bay(
                root / name,
                name=name,
                lab=LAB,
                endpoint=access.endpoint,
                token=access.token,
                hosts=hosts,
                trials={"lease_seconds": LEASE},
            )
            for name in (f"bay-{number}" for number in range(1, bays + 1))
        ]
        with ThreadPoolExecutor(max_workers=bays) as pool:
            list(pool.map(Bay.make_ready, found))
        yield found
    finally:
        if not keep:
            lab.down()


def inject_group(bay: Bay, group: list[Fault], rng: random.Random, record: Path) -> list[Outcome]:
    """One group on one fleet, one fault after the other, and what must be possible afterwards."""
    outcomes: list[Outcome] = []
    for fault in group:
        if STOPPING.is_set():
            return outcomes
        started = time.monotonic()
        try:
            outcome = exercise(bay, fault, rng)
            if not outcome.injected and fault.goes_on:
                # The run came to its end before the moment: a new one is begun for it.
                outcome = exercise(bay, fault, rng)
        except Exception as error:  # the fleet could not be made ready for it
            outcome = Outcome(fault.name, fault.group, [f"not injected: {type(error).__name__}: {error}"], None, False)
            for host in bay.hosts:
                host.heal()
        outcomes.append(outcome)
        _tell(outcome, fault.moment.name, time.monotonic() - started, record)
    if STOPPING.is_set():
        return outcomes
    started = time.monotonic()
    try:
        problems = finish(bay)
    except Exception as error:
        problems = [f"{type(error).__name__}: {error}"]
    outcomes.append(Outcome(AFTERWARDS, group[0].group, problems, None))
    _tell(outcomes[-1], group[0].group, time.monotonic() - started, record)
    return outcomes


def _tell(outcome: Outcome, moment: str, seconds: float, record: Path) -> None:
    with SAYING, record.open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")
    back = "" if outcome.seconds is None else f", back after {outcome.seconds:.1f} s"
    verdict = "ok" if outcome.passed else "FAILED"
    say(
        f"{verdict:6} {outcome.fault} [{moment}]{back} ({seconds:.0f} s)", *(f"    {each}" for each in outcome.problems)
    )


def inject_all(bays: list[Bay], groups: list[list[Fault]], seed: int, record: Path) -> list[Outcome]:
    """Every group, on whichever fleet is free. What comes out is appended to `record`, one JSON document a line."""
    free: queue.SimpleQueue[Bay] = queue.SimpleQueue()
    for bay in bays:
        free.put(bay)

    def one(numbered: tuple[int, list[Fault]]) -> list[Outcome]:
        number, group = numbered
        bay = free.get()
        try:
            return inject_group(bay, group, random.Random(seed + number), record)
        finally:
            free.put(bay)

    with ThreadPoolExecutor(max_workers=len(bays)) as pool:
        return [outcome for outcomes in pool.map(one, enumerate(groups)) for outcome in outcomes]


def switch(bay: Bay, record: Path, count: int) -> Outcome:
    """Switches under load, after a run that has staged something to switch to."""
    started = time.monotonic()
    bay.start("optimize", "--fleet", bay.name, "--experiment", "brief").wait(120)
    outcome, seen = switch_back_and_forth(bay, bay.hosts[0], count)
    _tell(outcome, seen, time.monotonic() - started, record)
    return outcome


def stop(_number: int, _frame: object) -> None:
    """Ctrl-C: end the runs under way, mend what was broken, and inject nothing more."""
    STOPPING.set()
    kill_all()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORD",
        help="groups that begin so, or faults with it in their name; may be repeated",
    )
    parser.add_argument("--count", type=int, default=100, metavar="N", help="kills at random instants (default: 100)")
    parser.add_argument("--quick", action="store_true", help="each kind of fault once")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the random instants (default: 1)")
    parser.add_argument("--bays", type=int, default=2, metavar="N", help="fleets at work at once (default: 2)")
    parser.add_argument("--hosts", type=int, default=2, metavar="N", help="of each fleet (default: 2)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the lab, and what came out, for the next call")
    parser.add_argument("--list", action="store_true", help="print the groups and their faults, and stop")
    parser.add_argument(
        "--table", action="store_true", help="write all that came out into docs/safety.md, as a whole run does"
    )
    args = parser.parse_args()
    chosen = [
        fault
        for fault in faults(random.Random(args.seed), random_kills=args.count)
        if args.only is None or any(fault.group.startswith(word) or word in fault.name for word in args.only)
    ]
    if args.quick:
        chosen = list(one_of_each(chosen).values())
    if args.list:
        say(*(f"{fault.group:16} {fault.name} [{fault.moment.name}]" for fault in chosen))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    groups: dict[str, list[Fault]] = {}
    for fault in chosen:
        groups.setdefault(fault.group, []).append(fault)
    with tempfile.TemporaryDirectory(prefix="ratchet-faults-") as temporary:
        root = args.folder or Path(temporary)
        record = root / "outcomes.jsonl"
        with provisioned(root, bays=args.bays, hosts=args.hosts, keep=args.folder is not None) as bays:
            outcomes = inject_all(bays, list(groups.values()), args.seed, record)
            if not STOPPING.is_set() and (args.only is None or "switches" in args.only):
                outcomes.append(switch(bays[0], record, 50 if args.quick else 500))
        if args.table or (args.only is None and not args.quick and not STOPPING.is_set()):
            recorded = [Outcome(**json.loads(line)) for line in record.read_text().splitlines()]
            order = [fault.name for fault in faults(random.Random(args.seed), random_kills=args.count)]
            recorded.sort(key=lambda outcome: order.index(outcome.fault) if outcome.fault in order else len(order))
            table.write(CHECKOUT / "docs/safety.md", recorded)
    failed = sum(not outcome.passed for outcome in outcomes)
    say(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
