"""What do searches find on a real nginx, and how far is what they claim from what a trial confirms?

usage: python -m benchmarks.search_on_hosts [--quick] [--output json] [--minutes N] [--seeds N]
(needs podman and root; one lab host)

The ranges, workload and objective of experiments/whole-site, from two baselines. Ours is the operator's command,
`controller optimize --strategy bayes`, up to what it has confirmed and pruned; the peers (`search_peers`) have the same
minutes of looks at settings, and believe their best one. They search one after the other on the same host, in an order
that is drawn; then what each believes is put to the same test, an ordinary trial against the baseline. Nothing that is
not kept counts as a gain.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.lab_fleet import CHECKOUT, FLEET, LabFleet, lab_fleet
from benchmarks.search_peers import HOW_TO_INSTALL, PEERS, installed

SEEDS, QUICK_SEEDS = 5, 1
MINUTES, QUICK_MINUTES = 12.0, 1.5
OURS = "ours"
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
SEARCHED, CONFIRMED = "searched", "confirmed"


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


def whole_site() -> dict[str, Any]:
    """The document of experiments/whole-site."""
    document: dict[str, Any] = json.loads((CHECKOUT / "experiments/whole-site/meta.json").read_text())
    return document


def trial_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same question about one setting."""
    document = {name: value for name, value in whole_site().items() if name not in {"ranges", "constraints"}}
    return document | {"variants": [{"name": "believed", "parameters": dict(parameters)}]}


def drawn_order(methods: Sequence[str], seed: int) -> list[str]:
    """In which order the methods have the host."""
    return random.Random(f"order/{seed}").sample(list(methods), len(methods))


def methods() -> list[str]:
    """Ours, and the peers that are installed."""
    return [OURS, *(name for name in PEERS if installed(name))]


def belief_of_ours(result: Mapping[str, Any]) -> Belief:
    """What `controller optimize --strategy bayes` kept, from its JSON."""
    (search,) = result["searches"]
    kept = [trial for trial in result["trials"] if trial["verdict"] == "KEEP"]
    told = (kept[0]["confirmed_effect"] or kept[0]["effect"]) if kept else None
    return Belief(
        parameters=kept[0]["parameters"] if kept else {},
        claimed=told["estimate"] if told else 0.0,
        settings=search["tried"],
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
        self._write(SEARCHED, whole_site())

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        folder = self._fleet.project / "experiments" / name
        folder.mkdir(exist_ok=True)
        (folder / "meta.json").write_text(json.dumps(document))

    def start_from(self, baseline: Mapping[str, Any]) -> None:
        """Make these the fleet's settings; files of group_vars are read in the order of their names."""
        settings = self._fleet.project / "inventory" / FLEET / "group_vars/all/own-baseline.yml"
        settings.write_text(yaml.safe_dump(dict(baseline)))
        self._fleet.reset()

    def search(self, method: str, seed: int, minutes: float) -> Belief:
        """One search; the fleet is on its baseline again when this returns."""
        module = ["controller"] if method == OURS else ["benchmarks.search_peers", method]
        budget = ["--budget-minutes", f"{minutes:g}", "--budget-trials", "2000", "--least-progress", "0"]
        arguments = ["--experiment", SEARCHED, "--strategy", "bayes", *budget, "--seed", str(seed)]
        # Our proofs and our pruning come after the budget.
        told = self._fleet.run(
            *(sys.executable, "-m", *module, "optimize", "--fleet", FLEET, *arguments, "--output", "json"),
            timeout=60 * minutes + 1800,
        )
        result = json.loads(told)
        if any(trial["verdict"] == "KEEP" for trial in result["trials"]):
            self._fleet.reset()
        return (belief_of_ours if method == OURS else belief_of_peer)(result)

    def confirm(self, belief: Belief, seed: int) -> Found:
        """The same test for all: an ordinary trial with the experiment's own timing."""
        if not belief.parameters:
            return Found(belief, 0.0)
        self._write(CONFIRMED, trial_of(belief.parameters))
        (trial,) = self._fleet.optimize(CONFIRMED, seed=1000 + seed)["trials"]
        if trial["verdict"] != "KEEP":
            return Found(belief, 0.0)
        self._fleet.reset()
        return Found(belief, float(trial["confirmed_effect"]["estimate"]))


def measure(fleet: LabFleet, baselines: Sequence[str], seeds: int, minutes: float) -> list[Figure]:
    bench = Bench(fleet)
    figures: list[Figure] = []
    for baseline in baselines:
        bench.start_from(BASELINES[baseline])
        found: dict[str, list[Found]] = {method: [] for method in methods()}
        for seed in range(1, seeds + 1):
            order = drawn_order(list(found), seed)
            beliefs = {method: bench.search(method, seed, minutes) for method in order}
            for method in order:
                found[method].append(bench.confirm(beliefs[method], seed))
                print(f"{baseline}, seed {seed}, {method}: {found[method][-1]}", file=sys.stderr)
        figures += figures_of(baseline, minutes, found)
    return figures


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
    for peer in (name for name in PEERS if name in found):
        gains = [confirmed(each) for each in found[peer]]
        name = f"the same by {peer}, from {baseline}"
        figures.append(Figure(name=name, unit="%", value=statistics.median(gains), low=min(gains), high=max(gains)))
    return [
        *figures,
        of(f"claimed beyond confirmed, from {baseline}", "points", lambda e: 100 * (e.belief.claimed - e.confirmed)),
        of(f"settings looked at, from {baseline}", "settings", lambda e: e.belief.settings),
        of(f"the whole command, from {baseline}", "min (ours proves and prunes)", lambda e: e.belief.minutes),
    ]


def main() -> None:
    args = parse_arguments(__doc__ or "", numbers={"minutes": float, "seeds": int})
    seeds = args.seeds or (QUICK_SEEDS if args.quick else SEEDS)
    minutes = args.minutes or (QUICK_MINUTES if args.quick else MINUTES)
    baselines = list(BASELINES)[:1] if args.quick else list(BASELINES)
    with lab_fleet("bench-search", 1) as fleet:
        figures = measure(fleet, baselines, seeds, minutes)
    emit("search_on_hosts", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
