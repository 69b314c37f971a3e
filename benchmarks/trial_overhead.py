"""What of a trial's wall time is not probing, for a trial with a minute of blocks on one lab host.

usage: python -m benchmarks.trial_overhead [--quick] [--output json]      (needs podman and root)
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.lab_fleet import CHECKOUT, LabFleet, lab_fleet

TARGET = 0.15
# No rule ends this trial before its last pair: two levels that answer alike, and no futility before so many pairs.
BLOCK_SECONDS = 10.0
PAIRS = 6


def write_experiment(fleet: LabFleet, block_seconds: float) -> None:
    experiments = fleet.own_experiments()
    document: dict[str, Any] = json.loads((CHECKOUT / "experiments/gzip-level/meta.json").read_text())
    document |= {
        "name": "a-minute",
        "variants": [{"name": "level-8", "parameters": {"nginx_gzip_comp_level": 8}}],
        "timing": {"block_seconds": block_seconds, "minimum_pairs": PAIRS, "maximum_pairs": PAIRS, "confirm_pairs": 3},
    }
    (experiments / "a-minute").mkdir(parents=True)
    (experiments / "a-minute/meta.json").write_text(json.dumps(document))


def measure(fleet: LabFleet, *, rounds: int, block_seconds: float = BLOCK_SECONDS) -> list[Figure]:
    """The figure, from as many trials. The fleet's experiments are replaced by the benchmark's own."""
    shares = []
    write_experiment(fleet, block_seconds)
    for seed in range(rounds):
        trial = fleet.optimize("a-minute", seed=seed)["trials"][0]
        shares.append(1 - trial["probing_seconds"] / trial["seconds"])
    value = statistics.median(shares)
    return [
        Figure(
            name="share of a trial's wall time that is not probing",
            unit="fraction",
            value=value,
            low=min(shares),
            high=max(shares),
            target=f"<= {TARGET}",
            reached=value <= TARGET,
        )
    ]


def main() -> None:
    args = parse_arguments(__doc__ or "")
    with lab_fleet("bench-overhead", 1) as fleet:
        figures = measure(fleet, rounds=1 if args.quick else 5)
    emit("trial_overhead", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
