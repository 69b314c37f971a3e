"""How long `controller --help` takes, beside an empty Python and `ansible --version`.

usage: python -m benchmarks.cli_start [--quick] [--output json]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Figure, emit, parse_arguments

TARGET_SECONDS = 0.5
BIN = Path(sys.executable).parent


def seconds(command: list[str], repetitions: int) -> list[float]:
    """Wall times of `command`, sorted; the first run warms the caches and is not counted."""
    times = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        times.append(time.perf_counter() - started)
    return sorted(times[1:])


def main() -> None:
    args = parse_arguments(__doc__ or "")
    repetitions = 5 if args.quick else 30
    peers = {
        "python -c pass": statistics.median(seconds([sys.executable, "-c", "pass"], repetitions)),
        "ansible --version": statistics.median(seconds([str(BIN / "ansible"), "--version"], min(repetitions, 10))),
    }
    figures = []
    for arguments in (["--help"], ["optimize", "--help"], ["experiments", "list"]):
        times = seconds([str(BIN / "controller"), *arguments], repetitions)
        value = statistics.median(times)
        target = arguments == ["--help"]
        figures.append(
            Figure(
                name=f"controller {' '.join(arguments)}",
                unit="s",
                value=value,
                low=times[0],
                high=times[-1],
                target=f"< {TARGET_SECONDS}" if target else "",
                reached=value < TARGET_SECONDS if target else None,
                peers=peers,
            )
        )
    emit("cli_start", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
