"""What searches on a host ended with, and the record that a long benchmark keeps of it (benchmarks.search_on_hosts)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Belief:
    """What a search ended with.

    Args:
        parameters: the setting that it believes best; empty when it believes none better than the baseline.
        claimed: its gain as the search tells it, a fraction.
        settings: settings looked at.
        minutes: on the clock, of the whole command.
    """

    parameters: Mapping[str, Any]
    claimed: float
    settings: int
    minutes: float


@dataclass(frozen=True)
class Found:
    """A belief, and the gain that a trial confirmed, a fraction: 0 when it was not kept."""

    belief: Belief
    confirmed: float


@dataclass(frozen=True)
class Cell:
    """All methods' searches from one baseline with one seed and budget, on one host in one sitting."""

    baseline: str
    minutes: float
    seed: int


@dataclass
class Findings:
    """What each method found, by cell; with a file also there, a line of JSON a cell, written when it is complete.

    Args:
        question: what was asked of the methods, in short. Lines that answer another one are left alone.
    """

    record: Path | None = None
    question: str = ""
    _found: dict[Cell, dict[str, Found]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises SystemExit, naming the line, for a record that this benchmark did not write."""
        if self.record is None or not self.record.exists():
            return
        for number, line in enumerate(self.record.read_text().splitlines(), start=1):
            try:
                document = json.loads(line)
                cell, found = _read(document)
                if document["question"] != self.question:
                    continue
            except (ValueError, TypeError, KeyError) as error:
                raise SystemExit(
                    f"{self.record}, line {number} is not a finding of this benchmark ({error!r}): "
                    "name another file, or take the line out"
                ) from None
            self._found[cell] = found

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._found

    def add(self, cell: Cell, found: Mapping[str, Found]) -> None:
        """Keep a cell that is complete."""
        self._found[cell] = dict(found)
        if self.record is None:
            return
        line = (
            {"question": self.question}
            | asdict(cell)
            | {"found": {method: asdict(each) for method, each in found.items()}}
        )
        with self.record.open("a") as record:
            record.write(json.dumps(line) + "\n")

    def of(self, baseline: str, minutes: float, seeds: int) -> dict[str, list[Found]]:
        """Method -> what it found with the seeds 1..`seeds` that are complete; every method in each of them."""
        cells = [
            cell for cell in self._found if (cell.baseline, cell.minutes) == (baseline, minutes) and cell.seed <= seeds
        ]
        everywhere = [name for name in self._found[cells[0]] if all(name in self._found[cell] for cell in cells)]
        return {method: [self._found[cell][method] for cell in cells] for method in everywhere}


def _read(document: Mapping[str, Any]) -> tuple[Cell, dict[str, Found]]:
    found = {
        method: Found(belief=Belief(**each["belief"]), confirmed=float(each["confirmed"]))
        for method, each in document["found"].items()
    }
    return Cell(document["baseline"], float(document["minutes"]), int(document["seed"])), found
