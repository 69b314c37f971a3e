"""What do searches find on a real nginx, and how far is what they claim from what a trial confirms?

usage: python -m benchmarks.search_on_hosts [--quick] [--output json] [--minutes N] [--seeds N] [--record FILE]
                                            [--labs N]
(needs podman and root; one lab host, or N)

The ranges, workload and objective of experiments/whole-site, from two baselines. Ours are the operator's commands:
`controller optimize --strategy bayes`, up to what it has confirmed and pruned, and `--strategy race` of as many drawn
settings as its rounds have time for. The peers (`search_peers`) have the same minutes of looks at settings, and believe
their best one. They search one after the other on the same host, in an order that is drawn; then what each believes is
put to the same test, an ordinary trial against the baseline. Nothing that is not kept counts as a gain.

A full run takes six hours. With `--record` every seed that is complete is a line of FILE, and is not measured
again: a run that was broken off goes on where it was, and one that is complete only prints its table. With `--labs` so
many seeds are measured at once, each on a host of its own; they disturb each other, so leave each a core or two.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.lab_fleet import CHECKOUT, FLEET, LabFleet, lab_fleet
from benchmarks.search_findings import Belief, Cell, Findings, Found
from benchmarks.search_peers import HOW_TO_INSTALL, PEERS, drawn_settings, installed
from controller.adapters.files.experiments import read_experiment
from controller.search.safe_space import Capacity, unsafe
from controller.search.space import Parameters

SEEDS, QUICK_SEEDS = 5, 1
MINUTES, QUICK_MINUTES = 5.0, 1.5
OURS, RACE = "bayes", "race"
# The rounds of a race of six take about as long in this experiment.
RACE_VARIANTS, RACE_MINUTES = 6, 5.0
# Methods that find much the same are told apart by what is confirmed, so that is measured better than is usual.
CONFIRM_PAIRS = 20
# What a lab host of the type cx23 has at least. `bayes` asks the host itself.
LAB_HOST = Capacity(memory_bytes=4 * 2**30, cpus=2, open_files=1024)
# Debian's nginx.conf with its commented compression taken in, and nginx's defaults for what it does not set.
DEBIAN = {
    "nginx_worker_connections": 768,
    "nginx_gzip_comp_level": 6,
    "nginx_gzip_min_length": 20,
    "nginx_upstream_keepalive": 0,
    "nginx_keepalive_requests": 1000,
    "nginx_open_file_cache": False,
    "nginx_multi_accept": False,
}
# The role's defaults, where the lab fleet sets something else.
TUNED = {"nginx_gzip_comp_level": 4, "nginx_upstream_keepalive": 16, "nginx_keepalive_requests": 1000}
BASELINES: Mapping[str, Mapping[str, Any]] = {"Debian's settings": DEBIAN, "a tuned baseline": TUNED}
BLOCKS = {"block_seconds": 1.0, "burn_in_seconds": 0.1}
WHOLE_SITE = CHECKOUT / "experiments/whole-site/meta.json"
SEARCHED, RACED, CONFIRMED = "searched", "raced", "confirmed"


def whole_site() -> dict[str, Any]:
    """The document of experiments/whole-site, with the same blocks for all: calibrated ones would be some luck too."""
    document: dict[str, Any] = json.loads(WHOLE_SITE.read_text())
    return document | {"timing": document["timing"] | BLOCKS}


def question() -> str:
    """What tells the findings of one experiment and its baselines from those of another."""
    return hashlib.sha256(json.dumps([whole_site(), BASELINES]).encode()).hexdigest()[:16]


def trial_of(*settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same question about these settings."""
    document = {name: value for name, value in whole_site().items() if name not in {"ranges", "constraints"}}
    variants = [
        {"name": f"setting-{number}", "parameters": dict(parameters)}
        for number, parameters in enumerate(settings, start=1)
    ]
    return document | {"variants": variants}


def raced_settings(baseline: Mapping[str, Any], seed: int) -> list[Parameters]:
    """As many settings as a race has time for, drawn at random from those that are safe on a lab host."""
    experiment = read_experiment(WHOLE_SITE)
    complete = {"nginx_worker_processes": "auto", "nginx_worker_connections": 1024, **baseline}

    def refused(parameters: Parameters) -> str:
        return unsafe({**complete, **parameters}, complete, LAB_HOST, experiment.constraints)

    return drawn_settings(experiment, seed, RACE_VARIANTS, refused)


def drawn_order(methods: Sequence[str], seed: int) -> list[str]:
    """In which order the methods have the host."""
    return random.Random(f"order/{seed}").sample(list(methods), len(methods))


def methods(minutes: float) -> list[str]:
    """Ours, of which the race needs its time, and the peers that are installed."""
    return [OURS, *([RACE] if minutes >= RACE_MINUTES else []), *(name for name in PEERS if installed(name))]


def belief_of_ours(result: Mapping[str, Any]) -> Belief:
    """What `controller optimize` kept, from its JSON."""
    kept = [trial for trial in result["trials"] if trial["verdict"] == "KEEP"]
    told = (kept[0]["confirmed_effect"] or kept[0]["effect"]) if kept else None
    return Belief(
        parameters=kept[0]["parameters"] if kept else {},
        claimed=told["estimate"] if told else 0.0,
        settings=sum(search["tried"] for search in result["searches"]) or len(result["trials"]),
        minutes=result["seconds"] / 60,
    )


def belief_of_peer(result: Mapping[str, Any]) -> Belief:
    """The best look, from the JSON of the peer's run; what broke a guardrail is nobody's best."""
    looks = [trial for trial in result["trials"] if trial["effect"] and not trial["reason"].startswith("guardrail-")]
    best = max(looks, key=lambda trial: float(trial["effect"]["estimate"]), default=None)
    better = best if best and best["effect"]["estimate"] > 0 else None
    return Belief(
        parameters=better["parameters"] if better else {},
        claimed=better["effect"]["estimate"] if better else 0.0,
        settings=len(result["trials"]),
        minutes=result["seconds"] / 60,
    )


class Bench:
    """The lab host with one experiment of ranges, and one that asks about what was believed."""

    def __init__(self, fleet: LabFleet) -> None:
        # The peers' command is a module of the checkout, and runs in the fleet's folder.
        self._fleet = replace(fleet, environment=fleet.environment | {"PYTHONPATH": str(CHECKOUT)})
        self._fleet.own_experiments()
        self._baseline: Mapping[str, Any] = {}
        self._write(SEARCHED, whole_site())

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        folder = self._fleet.project / "experiments" / name
        folder.mkdir(exist_ok=True)
        (folder / "meta.json").write_text(json.dumps(document))

    def start_from(self, baseline: Mapping[str, Any]) -> None:
        """Make these the fleet's settings; files of group_vars are read in the order of their names."""
        settings = self._fleet.project / "inventory" / FLEET / "group_vars/all/own-baseline.yml"
        settings.write_text(yaml.safe_dump(dict(baseline)))
        self._baseline = baseline
        self._fleet.reset()

    def search(self, method: str, seed: int, minutes: float) -> Belief:
        """One search; the fleet is on its baseline again when this returns."""
        module = ["benchmarks.search_peers", method] if method in PEERS else ["controller"]
        if method == RACE:
            self._write(RACED, trial_of(*raced_settings(self._baseline, seed)))
            what = ["--experiment", RACED, "--strategy", "race"]
        else:
            budget = ["--budget-minutes", f"{minutes:g}", "--budget-trials", "2000", "--least-progress", "0"]
            what = ["--experiment", SEARCHED, "--strategy", "bayes", *budget]
        # Our proofs and our pruning come after the budget.
        told = self._fleet.run(
            *(sys.executable, "-m", *module, "optimize", "--fleet", FLEET, *what),
            *("--seed", str(seed), "--output", "json"),
            timeout=60 * minutes + 1800,
        )
        result = json.loads(told)
        if any(trial["verdict"] == "KEEP" for trial in result["trials"]):
            self._fleet.reset()
        return (belief_of_peer if method in PEERS else belief_of_ours)(result)

    def confirm(self, belief: Belief, seed: int) -> Found:
        """The same test for all: an ordinary trial, with more fresh pairs."""
        if not belief.parameters:
            return Found(belief, 0.0)
        asked = trial_of(belief.parameters)
        self._write(CONFIRMED, asked | {"timing": asked["timing"] | {"confirm_pairs": CONFIRM_PAIRS}})
        (trial,) = self._fleet.optimize(CONFIRMED, seed=1000 + seed)["trials"]
        if trial["verdict"] != "KEEP":
            return Found(belief, 0.0)
        self._fleet.reset()
        return Found(belief, float(trial["confirmed_effect"]["estimate"]))


def measure(wanted: Sequence[Cell], findings: Findings, *, labs: int) -> None:
    """Search and confirm cell by cell, each in full before its lab begins the next. Raises what a lab raises."""
    left = deque(wanted)

    def work(number: int) -> None:
        try:
            with lab_fleet(f"bench-search-{number}", 1) as fleet:
                measure_in_turn(fleet, left, findings)
        finally:
            # Where one lab breaks, or has found that nothing is left, the others end with what they are at.
            left.clear()

    with ThreadPoolExecutor(labs) as pool:
        try:
            for ended in as_completed([pool.submit(work, number) for number in range(1, labs + 1)]):
                ended.result()
        finally:
            left.clear()


def measure_in_turn(fleet: LabFleet, left: deque[Cell], findings: Findings) -> None:
    """Take the first cell that is left, until none is."""
    bench = Bench(fleet)
    while True:
        try:
            cell = left.popleft()
        except IndexError:
            return
        bench.start_from(BASELINES[cell.baseline])
        order = drawn_order(methods(cell.minutes), cell.seed)
        beliefs = {method: bench.search(method, cell.seed, cell.minutes) for method in order}
        found = {method: bench.confirm(beliefs[method], cell.seed) for method in order}
        for method in order:
            print(f"{cell.baseline}, seed {cell.seed}, {method}: {found[method]}", file=sys.stderr)
        findings.add(cell, found)


def figures_of(baseline: str, minutes: float, found: Mapping[str, Sequence[Found]]) -> list[Figure]:
    """The figures of one baseline; `found`: what each method found, one a seed. A peer that is missing is None."""

    def of(name: str, unit: str, value: Callable[[Found], float], *, compared: bool = False) -> Figure:
        ours = [value(each) for each in found[OURS]]
        theirs = {
            peer: statistics.median(value(each) for each in found[peer]) if peer in found else None for peer in PEERS
        }
        best = max((each for each in theirs.values() if each is not None), default=0.0)
        middle = statistics.median(ours)
        return Figure(
            name=name,
            unit=unit,
            value=middle,
            low=min(ours),
            high=max(ours),
            target=">= best peer" if compared else "",
            reached=middle >= best if compared else None,
            peers=theirs,
        )

    def confirmed(each: Found) -> float:
        return 100 * each.confirmed

    missing = "" if "smac" in found else f" ({HOW_TO_INSTALL})"
    figures = [of(f"confirmed gain from {baseline} in {minutes:g} min", f"%{missing}", confirmed, compared=True)]
    for other in (name for name in (RACE, *PEERS) if name in found):
        gains = [confirmed(each) for each in found[other]]
        name = f"the same by {other}, from {baseline}"
        figures.append(Figure(name=name, unit="%", value=statistics.median(gains), low=min(gains), high=max(gains)))
    return [
        *figures,
        of(f"claimed beyond confirmed, from {baseline}", "points", lambda e: 100 * (e.belief.claimed - e.confirmed)),
        of(f"settings looked at, from {baseline}", "settings", lambda e: e.belief.settings),
        of(f"the whole command, from {baseline}", "min (ours proves and prunes)", lambda e: e.belief.minutes),
    ]


def main() -> None:
    args = parse_arguments(__doc__ or "", further={"minutes": float, "seeds": int, "record": Path, "labs": int})
    seeds = args.seeds or (QUICK_SEEDS if args.quick else SEEDS)
    minutes = args.minutes or (QUICK_MINUTES if args.quick else MINUTES)
    baselines = list(BASELINES)[:1] if args.quick else list(BASELINES)
    findings = Findings(args.record, question())
    cells = [Cell(baseline, minutes, seed) for seed in range(1, seeds + 1) for baseline in baselines]
    if wanted := [cell for cell in cells if cell not in findings]:
        measure(wanted, findings, labs=max(1, min(args.labs or 1, len(wanted))))
    figures = [
        figure
        for baseline in baselines
        for figure in figures_of(baseline, minutes, findings.of(baseline, minutes, seeds))
    ]
    emit("search_on_hosts", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
