"""How long a clear gain takes to be kept on one lab host: probing, and everything around it.

usage: python -m benchmarks.time_to_keep [--quick] [--output json]      (needs podman and root)
"""

from __future__ import annotations

import statistics

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.lab_fleet import LabFleet, lab_fleet

EXPERIMENT = "gzip-level"
TARGET_SECONDS = 60.0


def measure(fleet: LabFleet, *, rounds: int) -> list[Figure]:
    """All figures, from as many runs; nothing stays kept."""
    trials = []
    for seed in range(rounds):
        trials.append(fleet.optimize(EXPERIMENT, seed=seed)["trials"][0])
        fleet.reset()
    kept = [trial for trial in trials if trial["verdict"] == "KEEP"]
    probing = sorted(trial["probing_seconds"] for trial in kept) or [float(TARGET_SECONDS * 10)]
    whole = sorted(trial["seconds"] for trial in kept) or probing
    effects = sorted(trial["confirmed_effect"]["estimate"] for trial in kept) or [0.0]
    value = statistics.median(probing)
    return [
        Figure(
            name="probing until KEEP",
            unit="s",
            value=value,
            low=probing[0],
            high=probing[-1],
            target=f"<= {TARGET_SECONDS:.0f}",
            reached=value <= TARGET_SECONDS and len(kept) == rounds,
        ),
        Figure(
            name="whole trial, live check and commit included",
            unit="s",
            value=statistics.median(whole),
            low=whole[0],
            high=whole[-1],
        ),
        Figure(
            name="confirmed gain", unit="fraction", value=statistics.median(effects), low=effects[0], high=effects[-1]
        ),
        Figure(name="kept", unit=f"of {rounds}", value=len(kept), target=f"{rounds}", reached=len(kept) == rounds),
    ]


def main() -> None:
    args = parse_arguments(__doc__ or "")
    with lab_fleet("bench-keep", 1) as fleet:
        figures = measure(fleet, rounds=2 if args.quick else 9)
    emit("time_to_keep", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
