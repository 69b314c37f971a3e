"""What is decided on real nginx, and how soon: alike configurations, known gains and known harms, quiet and beside a
noisy neighbour. Every run is verified from its CSVs.

usage: python -m benchmarks.live_decisions [--quick] [--output json] [--only WORD]
(needs podman and root; one lab host; half an hour, or the questions that begin with WORD)

The neighbour is a CPU burner on the host itself: bursts of half a second, a second and a half apart. A gain of 25 % is
asked of gzip levels, 5 % and 2 % of `open_file_cache` (on small files, and on one large compressed document); what each
truly gains on the machine at hand is told beside the time that it took.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.lab_fleet import FLEET, LabFleet, lab_fleet

ROUNDS, QUICK_ROUNDS = 3, 1
NOISE_TARGET = 1.5
# The burner ends by itself, whatever becomes of the benchmark.
NEIGHBOUR_SECONDS = 1500
NEIGHBOUR = "while :; do timeout 0.5 sh -c 'while :; do :; done'; sleep 1.5; done"
GZIP = {"Accept-Encoding": "gzip"}


def document(rate: float) -> dict[str, Any]:
    """One compressible document."""
    return {"rate": rate, "requests": [{"path": "/data/catalogue.json", "headers": GZIP}]}


@dataclass(frozen=True)
class Case:
    """A question whose answer is known. `within`: seconds of probing until it is to be given; 0: no target."""

    name: str
    gains: bool
    within: float
    parameters: dict[str, Any]
    requires: dict[str, Any] = field(default_factory=dict)
    workload: dict[str, Any] = field(default_factory=lambda: document(60))
    minimum_effect: float = 0.03
    maximum_pairs: int = 40
    block_seconds: float | None = None
    quick: bool = False


CASES = (
    Case(
        "alike",
        False,
        0,
        {"nginx_postpone_output": 1461},
        {"nginx_gzip_comp_level": 4},
        # Noise is told of blocks of a second, whatever length a calibration would choose.
        block_seconds=1.0,
        quick=True,
    ),
    Case("gain of 25 %", True, 12, {"nginx_gzip_comp_level": 4}, {"nginx_gzip_comp_level": 6}, quick=True),
    Case(
        "gain of 5 %",
        True,
        25,
        {"nginx_open_file_cache": True},
        workload={"rate": 200, "requests": [{"path": f"/tiles/{number:03}.bin"} for number in range(10)]},
    ),
    Case(
        "gain of 2 %",
        True,
        60,
        {"nginx_open_file_cache": True},
        {"nginx_gzip_comp_level": 1},
        workload=document(120),
        minimum_effect=0.005,
        maximum_pairs=80,
    ),
    Case("harm: gzip level 9", False, 20, {"nginx_gzip_comp_level": 9}, {"nginx_gzip_comp_level": 4}, quick=True),
    Case(
        "harm: a thread pool",
        False,
        20,
        {"nginx_aio_threads": True},
        workload={"rate": 100, "requests": [{"path": "/media/64k.bin", "weight": 2}, {"path": "/data/summary.json"}]},
    ),
)


@dataclass
class Seen:
    """What one case's trials showed in one world."""

    trials: list[dict[str, Any]] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    verified: int = 0


def write_experiment(fleet: LabFleet, case: Case) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in case.name).strip("-").lower()
    folder = fleet.own_experiments() / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(
        json.dumps(
            {
                "question": f"Is this decided rightly: {case.name}?",
                "why": "The answer is known, and the decision is measured.",
                "risk": {"level": "low", "note": "a lab host"},
                "sources": ["benchmarks/live_decisions.py"],
                "requires": case.requires,
                "variants": [{"name": "variant", "parameters": case.parameters}],
                "workload": case.workload,
                "objective": {"metric": "p50", "minimum_effect": case.minimum_effect},
                "timing": {"maximum_pairs": case.maximum_pairs}
                | ({"block_seconds": case.block_seconds} if case.block_seconds else {}),
            }
        )
    )
    return name


def ask(fleet: LabFleet, case: Case, seen: Seen, seed: int) -> None:
    """One run of a case; the fleet is as it was when this returns."""
    result = fleet.optimize(write_experiment(fleet, case), seed=seed)
    (trial,) = result["trials"]
    seen.trials.append(trial)
    for sidecar in fleet.sidecars(result["run_id"]):
        blocks = sidecar["blocks"]
        seen.gains += [block["paired_gain"] for block in blocks if block["arm"] == "control" and block["valid"]]
    # It ends with another status, and so this benchmark, when a verdict is not the recorded one.
    fleet.controller("verify", result["run_id"])
    seen.verified += 1
    if trial["verdict"] == "KEEP":
        fleet.reset()


def figures_of(case: Case, world: str, seen: Seen) -> list[Figure]:
    asked = len(seen.trials)
    right = [trial for trial in seen.trials if (trial["verdict"] == "KEEP") == case.gains]
    where = f"{case.name}{world}"
    found = [
        Figure(
            name=f"{where}: {'kept' if case.gains else 'not kept'}",
            unit=f"of {asked}",
            value=len(right),
            target=str(asked),
            reached=len(right) == asked,
        )
    ]
    if case.within:
        seconds = [trial["probing_seconds"] for trial in right] or [999.0]
        found.append(
            Figure(
                name=f"{where}: probing until decided",
                unit=f"s ({', '.join(sorted({trial['reason'] for trial in seen.trials}))})",
                value=statistics.median(seconds),
                low=min(seconds),
                high=max(seconds),
                target=f"<= {case.within:g}",
                reached=statistics.median(seconds) <= case.within,
            )
        )
        effects = [
            100 * told["estimate"] for trial in seen.trials if (told := trial["confirmed_effect"] or trial["effect"])
        ]
        if effects:
            found.append(
                Figure(
                    name=f"{where}: gain",
                    unit="%",
                    value=statistics.median(effects),
                    low=min(effects),
                    high=max(effects),
                )
            )
    else:
        noise = 100 * statistics.pstdev(seen.gains, 0.0)
        found.append(
            Figure(
                name=f"{where}: noise of a pair",
                unit="% (standard deviation)",
                value=noise,
                target=f"<= {NOISE_TARGET}" if not world else "",
                reached=noise <= NOISE_TARGET if not world else None,
            )
        )
    return found


@contextmanager
def neighbour(fleet: LabFleet) -> Iterator[None]:
    """A burner of CPU time in bursts beside nginx."""
    unit = "bench-neighbour"
    on_hosts = ["ansible", "-i", f"inventory/{FLEET}", "all", "-b", "-m", "ansible.builtin.command", "-a"]
    limits = f"--property=RuntimeMaxSec={NEIGHBOUR_SECONDS}"
    fleet.run(*on_hosts, f'systemd-run --unit={unit} --collect {limits} bash -c "{NEIGHBOUR}"')
    try:
        yield
    finally:
        fleet.run(*on_hosts, f"systemctl stop {unit}")


def cases_of(*, quick: bool, only: str = "") -> list[Case]:
    """The questions that begin with `only`, or where it is empty all of them, or the quick ones."""
    return [case for case in CASES if (case.name.startswith(only) if only else case.quick or not quick)]


def measure(fleet: LabFleet, *, quick: bool, only: str = "") -> list[Figure]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    cases = cases_of(quick=quick, only=only)
    figures: list[Figure] = []
    verified = asked = 0

    def run_all(world: str) -> None:
        nonlocal verified, asked
        for case in cases:
            seen = Seen()
            for seed in range(rounds):
                ask(fleet, case, seen, seed)
            figures.extend(figures_of(case, world, seen))
            verified, asked = verified + seen.verified, asked + rounds

    run_all("")
    if not quick:
        with neighbour(fleet):
            run_all(", noisy")
    figures.append(
        Figure(
            name="runs that `controller verify` recomputes",
            unit=f"of {asked}",
            value=verified,
            target=str(asked),
            reached=verified == asked,
        )
    )
    return figures


def main() -> None:
    args = parse_arguments(__doc__ or "", further={"only": str})
    only = args.only or ""
    if not cases_of(quick=args.quick, only=only):
        raise SystemExit(f"no question begins with {only!r}: {', '.join(case.name for case in CASES)}")
    with lab_fleet("bench-decisions", 1) as fleet:
        figures = measure(fleet, quick=args.quick, only=only)
    emit("live_decisions", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
