"""What every benchmark prints: one table for people, or one JSON document for programs.

The document: `{"benchmark", "quick", "figures": [{"name", "unit", "value", "spread": [low, high], "target",
"reached", "peers": {name: value}}]}`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Output = Literal["table", "json"]
_METAVARS = {"Path": "FILE", "str": "WORD"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number beside its target and its peers.

    Args:
        low, high: the spread of the repetitions that `value` was taken from, in the same unit; None when there was one.
        target: what was to be reached, as text ("<= 1.3"); empty when the figure is only told.
        reached: whether it was; None without a target.
        peers: the same figure of other tools, measured in the same run; None where the tool does not tell it.
    """

    name: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    target: str = ""
    reached: bool | None = None
    peers: Mapping[str, float | None] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The figure as it stands in the JSON document."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "spread": [self.low, self.high],
            "target": self.target,
            "reached": self.reached,
            "peers": dict(self.peers),
        }


def parse_arguments(
    description: str,
    arguments: Sequence[str] | None = None,
    *,
    further: Mapping[str, type[int | float | str | Path]] = {},
) -> argparse.Namespace:
    """The two options that all benchmarks share: `quick` (bool) and `output` ("table" or "json").

    `further`: options of one benchmark, by name; None where they are not given.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a look: fewer repetitions")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    for name, kind in further.items():
        parser.add_argument(f"--{name}", type=kind, metavar=_METAVARS.get(kind.__name__, "N"))
    return parser.parse_args(arguments)


def emit(benchmark: str, quick: bool, figures: Sequence[Figure], output: Output = "table") -> None:
    """Print the figures on stdout."""
    if output == "json":
        document = {"benchmark": benchmark, "quick": quick, "figures": [figure.document() for figure in figures]}
        sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
        return
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(_table(benchmark, quick, figures))


def _table(benchmark: str, quick: bool, figures: Sequence[Figure]) -> Table:
    table = Table(title=f"{benchmark}{' (quick)' if quick else ''}", title_justify="left")
    for heading in ("figure", "value", "spread", "unit", "target", "reached", "peers"):
        table.add_column(heading, justify="right" if heading in {"value", "spread"} else "left")
    for figure in figures:
        spread = "" if figure.low is None or figure.high is None else f"{figure.low:.4g} .. {figure.high:.4g}"
        reached = {True: "yes", False: "NO", None: ""}[figure.reached]
        peers = ", ".join(
            f"{name} {'n/a' if value is None else format(value, '.4g')}" for name, value in figure.peers.items()
        )
        table.add_row(figure.name, f"{figure.value:.4g}", spread, figure.unit, figure.target, reached, peers)
    return table
