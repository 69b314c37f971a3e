"""Record what two alike configurations show on a lab host beside a noisy neighbour: the traces of `recorded_worlds`.

usage: python -m benchmarks.record_traces NAME [--quick] [--beside TEXT]  (needs podman and root; one lab host; 20 min)

Two A/A trials by `controller optimize`, a duet and then a switchback, beside the neighbour of `live_decisions`, which
is started anew for each. Their variant differs in a setting that cannot matter to the workload. Nothing calibrates,
and next to nothing ends them early: the proof waits for the last pair, guardrails are wide, and with a minimum effect
of 0 giving up takes evidence of 20 that a variant is worse which is not. The coin alone brings that about in at most
one trial of twenty, whatever the noise is. That trial, or one whose probe missed its schedule in every third pair, is
asked again with the next seed. Every run is verified from its CSVs.

A trace is what the host showed, without what the coin made of it. All numbers are natural logarithms, to six digits.

duet.json: `gains`, one number for each valid pair in order of time, `ln(p50 on instance A / p50 on instance B)` request
by request: the paired gain if control was on A, its opposite if the variant was.

switchback.json: `first` and `second`, `ln(p50 in microseconds)` of the two blocks of each valid pair in order of time;
`first_at` and `second_at`, when they began, in seconds from the first one.

Both tell `software`, `recorded` (the day), `workload`, `block_seconds` and `burn_in_seconds`, `neighbour` (its
command), `beside` (what else ran on the machine, as given), `pairs` (how many numbers) and `spoilt_pairs` (left out).
They are written to benchmarks/traces/NAME; with --quick, which takes ten pairs each, to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.lab_fleet import LabFleet, lab_fleet
from benchmarks.live_decisions import NEIGHBOUR, document, neighbour
from benchmarks.recorded_worlds import TRACES

QUICK_PAIRS = 10
ATTEMPTS = 4
# As often as the demo's experiments; the probe keeps that schedule beside the neighbour on an otherwise idle machine.
RATE = 60
DIGITS = 6
WIDE = {"error_rate": 1, "p99_ratio": 1000, "memory_ratio": 1000, "open_files_ratio": 1000, "cpu_ratio": 1000}


@dataclass(frozen=True)
class Recording:
    """One A/A trial."""

    design: str
    pairs: int
    block_seconds: float
    burn_in_seconds: float


RECORDINGS = (Recording("duet", 300, 1.0, 0.1), Recording("switchback", 150, 2.0, 0.3))


def experiment(recording: Recording) -> dict[str, Any]:
    """`meta.json` of an A/A trial which asks for that many pairs, and gives up before only by an unlucky coin."""
    return {
        "question": "What do two alike configurations show?",
        "why": "The noise of a host is recorded.",
        "risk": {"level": "low", "note": "a lab host"},
        "sources": ["benchmarks/record_traces.py"],
        "design": recording.design,
        "requires": {"nginx_gzip_comp_level": 4},
        "variants": [{"name": "alike", "parameters": {"nginx_postpone_output": 1461}}],
        "workload": document(RATE),
        "objective": {"metric": "p50", "minimum_effect": 0.0},
        "guardrails": WIDE,
        "timing": {
            "block_seconds": recording.block_seconds,
            "burn_in_seconds": recording.burn_in_seconds,
            "minimum_pairs": recording.pairs,
            "maximum_pairs": recording.pairs,
            "confirm_pairs": 3,
        },
    }


def trace_of(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial's sidecar says of the host: the numbers above, without the recorded draw."""
    blocks: list[dict[str, Any]] = sorted(sidecar["blocks"], key=lambda block: block["block"])
    pairs = list(zip(blocks[::2], blocks[1::2], strict=True))
    valid = [(one, other) for one, other in pairs if one["valid"] and other["valid"]]
    counts = {"pairs": len(valid), "spoilt_pairs": len(pairs) - len(valid)}
    if sidecar["design"] == "duet":
        # The odd block is instance A's.
        return counts | {
            "gains": [on_a["paired_gain"] if on_a["arm"] == "control" else -on_a["paired_gain"] for on_a, _ in valid]
        }
    begun = valid[0][0]["started_at"] if valid else 0.0
    numbers: dict[str, Any] = {}
    for name, side in (("first", 0), ("second", 1)):
        numbers[name] = [round(math.log(max(1, pair[side]["p50_us"])), DIGITS) for pair in valid]
        numbers[f"{name}_at"] = [round(pair[side]["started_at"] - begun, 3) for pair in valid]
    return counts | numbers


def record(fleet: LabFleet, recording: Recording, *, beside: str) -> dict[str, Any]:
    """Run the trial; its trace as a document."""
    folder = fleet.own_experiments() / f"alike-{recording.design}"
    folder.mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(experiment(recording)))
    for seed in range(ATTEMPTS):
        with neighbour(fleet):
            result = fleet.optimize(folder.name, seed=seed, timeout=1500)
        (trial,) = result["trials"]
        fleet.controller("verify", result["run_id"])
        if trial["verdict"] == "KEEP":
            fleet.reset()
        (sidecar,) = fleet.sidecars(result["run_id"])
        trace = trace_of(sidecar)
        if trace["pairs"] + trace["spoilt_pairs"] >= recording.pairs:
            return {
                "format": 1,
                "design": recording.design,
                "recorded": datetime.now(UTC).date().isoformat(),
                "software": sidecar["software"],
                "workload": sidecar["workload"],
                "block_seconds": recording.block_seconds,
                "burn_in_seconds": recording.burn_in_seconds,
                "neighbour": NEIGHBOUR,
                "beside": beside,
                **trace,
            }
        sys.stderr.write(f"{recording.design}: {trial['reason']} after {trace['pairs']} pairs; once more\n")
    raise SystemExit(f"{recording.design}: no trial out of {ATTEMPTS} reached {recording.pairs} pairs")


def _folder_name(text: str) -> str:
    """Raises ArgumentTypeError for what is no plain name."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", text):
        raise argparse.ArgumentTypeError("small letters, digits and dashes, a letter first")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Record A/A traces on a lab host beside a noisy neighbour.")
    parser.add_argument("name", metavar="NAME", type=_folder_name, help="of the folder in benchmarks/traces")
    parser.add_argument("--quick", action="store_true", help="ten pairs each, into a temporary folder")
    parser.add_argument("--beside", default="", metavar="TEXT", help="what else runs on this machine, for the record")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="ratchet-traces-")) if options.quick else TRACES / options.name
    folder.mkdir(exist_ok=True)
    with lab_fleet("bench-traces", 1) as fleet:
        for planned in RECORDINGS:
            pairs = QUICK_PAIRS if options.quick else planned.pairs
            recording = Recording(planned.design, pairs, planned.block_seconds, planned.burn_in_seconds)
            told = record(fleet, recording, beside=options.beside)
            path = folder / f"{recording.design}.json"
            path.write_text(json.dumps(told, separators=(",", ":")) + "\n")
            print(f"{path}: {told['pairs']} pairs, {told['spoilt_pairs']} spoilt")


if __name__ == "__main__":
    main()
