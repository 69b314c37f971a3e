"""Worlds of `decision_quality` whose noise is real: A/A traces of a lab host (`record_traces`), randomised anew.

In an A/A trial the coin changes nothing but signs: both arms are alike, so what the two instances or the two blocks of
a pair showed would have been shown had the coin fallen otherwise. Therefore the recorded numbers with coins drawn anew
are exactly what further A/A trials in the same weather would have seen. Everything about the noise that could mislead
a rule is kept as it was: heavy tails, bursts and their rhythm against the blocks, drift, what one pair has to do with
the next, instances that are not quite alike, a second block that tends to be slower than the first. No distribution is
assumed or fitted, so a rule that keeps too often in real noise is found out. Which request of a duet's slot went first
stays as it was drawn.

A host begins at a place of its own in the trace and goes round it. So there is as much weather as was recorded, on one
host, and no other: a trial with more pairs than the trace meets the same noise again, with other coins, and nothing
slower than the trace is in it. Before/after rules see the switchback's blocks in order of time. A true effect is the
same factor for every pair, as in the synthetic worlds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from benchmarks.decision_worlds import DUET_PAIRS, SECONDS, SWITCHBACK_PAIRS, Floats, Generator, halfway, randomised

TRACES = Path(__file__).resolve().parent / "traces"


@dataclass(frozen=True, eq=False)
class RecordedWorld:
    """Hosts that live through a trace, each from another place on.

    Args:
        duet: gain of each pair with control on instance A.
        switchback: the same with control in the first block.
        level: log latency of the switchback's blocks in order of time, begun at `times`; the trace goes on from its
            beginning after `seconds`.
    """

    name: str
    duet: Floats
    switchback: Floats
    level: Floats
    times: Floats
    seconds: float

    def hosts(self, draw: Generator, runs: int, /) -> Floats:
        """Where each host begins, as a share of the trace: runs x 1."""
        return draw.random((runs, 1))

    def duet_gains(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        return randomised(draw, _round(self.duet, hosts, DUET_PAIRS), effect)

    def switchback_gains(self, draw: Generator, hosts: Floats, effect: float) -> Floats:
        return randomised(draw, _round(self.switchback, hosts, SWITCHBACK_PAIRS), effect)

    def before_after(self, _: Generator, hosts: Floats, effect: float) -> Floats:
        when = hosts * self.seconds + numpy.arange(SECONDS)
        return halfway(numpy.interp(when, self.times, self.level, period=self.seconds), effect)


def _round(trace: Floats, places: Floats, count: int) -> Floats:
    """`count` numbers of the trace from each place on, round and round."""
    first = (places * len(trace)).astype(int)
    told: Floats = trace[(first + numpy.arange(count)) % len(trace)]
    return told


def recorded_worlds() -> list[RecordedWorld]:
    """All that are committed, one a folder of benchmarks/traces."""
    return [recorded_world(folder) for folder in sorted(TRACES.iterdir())]


def recorded_world(folder: Path) -> RecordedWorld:
    """The world of a folder's traces, named by it. Raises ValueError when one is not what `record_traces` writes."""
    duet = _read(folder / "duet.json", "gains")
    blocks = _read(folder / "switchback.json", "first", "second", "first_at", "second_at")
    times = _in_turns(blocks["first_at"], blocks["second_at"])
    if not (numpy.diff(times) > 0).all():
        raise ValueError(f"{folder / 'switchback.json'}: its blocks are not in order of time")
    return RecordedWorld(
        name=f"recorded {folder.name}",
        duet=duet["gains"],
        switchback=blocks["first"] - blocks["second"],
        level=_in_turns(blocks["first"], blocks["second"]),
        times=times,
        # The last block is followed by the first as blocks are on average.
        seconds=float((times[-1] - times[0]) * len(times) / (len(times) - 1)),
    )


def _read(path: Path, *columns: str) -> dict[str, Floats]:
    document: dict[str, Any] = json.loads(path.read_text())
    told = {column: numpy.array(document[column], dtype=numpy.float64) for column in columns}
    for column, numbers in told.items():
        if numbers.shape != (document["pairs"],) or len(numbers) < 2 or not numpy.isfinite(numbers).all():
            raise ValueError(f"{path}: {column} is not one number for each of its {document['pairs']} pairs")
    return told


def _in_turns(one: Floats, other: Floats) -> Floats:
    return numpy.stack([one, other], axis=1).ravel()
