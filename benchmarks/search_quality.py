"""How good is what a search finds, and how far is what it claims from what fresh pairs confirm?

Searches of one space on the same budget of minutes: `bayes` and its peers, random search and TPE without repeats, which
believe their best look. Every candidate is then put to the same test, our confirmation on fresh pairs.

Run `python -m benchmarks.search_quality [--quick] [--output json]`. It runs on simulated hosts (`search_worlds`: twelve
parameters, two baselines, quiet and noisy); no host is needed. `benchmarks.search_on_hosts` asks a real one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.search_peers import Peer, random_search, tpe_once
from benchmarks.search_worlds import Parameters, SimulatedHost, experiment, plan, true_gain
from controller.model.experiment import Experiment, Variant
from controller.model.run import Budget
from controller.search import bayes, race
from controller.search.bayes import SearchPlan
from controller.search.ledger import Entry, Stop, Try, standings

SEEDS, QUICK_SEEDS = 15, 2
MINUTES, QUICK_MINUTES = 12.0, 4.0
# A fleet that somebody tuned already has this much of the gain.
TUNED_GAIN = 0.12
# (baseline, gain that it has already, noise of a pair): a duet on a quiet host, and one beside noisy neighbours.
WORLDS = (
    ("Debian's default", 0.0, 0.013),
    ("a tuned baseline", TUNED_GAIN, 0.013),
    ("Debian's default, noisy", 0.0, 0.06),
)
RACED = 8

Truth = Callable[[Parameters], float]


@dataclass(frozen=True)
class Found:
    """What one search believes, and what became of it."""

    claimed: float
    confirmed: float
    true: float
    settings: int


def confirm(host: SimulatedHost, about: Experiment, best: Variant, *, claimed: float, settings: int) -> Found:
    """Our confirmation: nothing that is not kept counts as a gain."""
    kept, seen = host.prove(plan(900, best, about, variants=3))
    true = host.truth(best.parameters) if kept else 0.0
    return Found(claimed=claimed, confirmed=seen if kept else 0.0, true=true, settings=settings)


def search_for(about: Experiment, seed: int, minutes: float) -> SearchPlan:
    """A search that only its minutes end, on one host where every setting is safe."""
    budget = Budget(minutes=minutes, trials=2000, least_progress=0.0)
    return SearchPlan(about, seed=seed, budget=budget, hosts=1, unsafe=lambda _: "")


def search_bayes(about: Experiment, host: SimulatedHost, seed: int, minutes: float) -> Found:
    """Ours, as `controller optimize --strategy bayes` proposes; without the pruning."""
    ledger: list[Entry] = []
    search = search_for(about, seed, minutes)
    while not isinstance(proposal := bayes.propose(search, ledger), Stop):
        of = plan(proposal.trial, proposal.variant, about, variants=3)
        ledger.append(host.measure(of, proposal, len(ledger) + 1))
    standing = standings(ledger)
    found = Found(claimed=0.0, confirmed=0.0, true=0.0, settings=len(standing))
    for trial in proposal.ranking:
        stand = standing[trial]
        claimed = stand.effect.estimate if stand.effect else 0.0
        found = confirm(host, about, stand.variant, claimed=claimed, settings=len(standing))
        if found.confirmed > 0:
            break
    return found


def search_once_each(about: Experiment, host: SimulatedHost, seed: int, minutes: float, *, peer: Peer) -> Found:
    """A peer: one look at each setting, and the best look is believed."""
    ledger: list[Entry] = []
    search = search_for(about, seed, minutes)
    while not isinstance(proposal := peer(search, ledger), Stop):
        of = plan(proposal.trial, proposal.variant, about, variants=3)
        ledger.append(host.measure(of, proposal, len(ledger) + 1))
    if not ledger:
        return Found(claimed=0.0, confirmed=0.0, true=0.0, settings=0)
    looks = [(e.judgement.effect.estimate if e.judgement and e.judgement.effect else -1.0, e.variant) for e in ledger]
    claimed, best = max(looks, key=lambda look: look[0])
    return confirm(host, about, best, claimed=claimed, settings=len(ledger))


def drawn_variants(about: Experiment, seed: int) -> list[Variant]:
    """Settings drawn at random, for races."""
    proposals = [bayes.propose(search_for(about, seed * 100_003 + n, minutes=1), []) for n in range(1, RACED + 1)]
    return [each.variant.model_copy(update={"name": f"v{n}"}) for n, each in enumerate(proposals, 1)
            if isinstance(each, Try)]  # fmt: skip


def search_race(about: Experiment, truth: Truth, seed: int) -> tuple[Found, float]:
    """A race of settings drawn at random, and the true gain of the best of them."""
    variants = drawn_variants(about, seed)
    trials = [plan(n, variant, about, variants=RACED) for n, variant in enumerate(variants, 1)]
    host = SimulatedHost(truth, seed)
    ledger: list[Entry] = []
    while not isinstance(proposal := race.propose(trials, seed, ledger), Stop):
        ledger.append(host.measure(trials[proposal.trial - 1], proposal, len(ledger) + 1))
    best = max(truth(variant.parameters) for variant in variants)
    won = standings(ledger)[proposal.ranking[0]] if proposal.ranking else None
    gain = truth(won.variant.parameters) if won else 0.0
    claimed = won.effect.estimate if won and won.effect else 0.0
    return Found(claimed=claimed, confirmed=gain, true=gain, settings=len(variants)), best


def measure(*, quick: bool) -> list[Figure]:
    about = experiment()
    seeds = range(1, (QUICK_SEEDS if quick else SEEDS) + 1)
    minutes = QUICK_MINUTES if quick else MINUTES
    figures: list[Figure] = []
    for baseline, already, noise in WORLDS:

        def truth(parameters: Parameters, already: float = already) -> float:
            return true_gain(parameters) - already

        hosts = partial(SimulatedHost, truth, noise=noise)
        ours = [search_bayes(about, hosts(seed), seed, minutes) for seed in seeds]
        peers = {
            name: [search_once_each(about, hosts(seed), seed, minutes, peer=peer) for seed in seeds]
            for name, peer in (("random", random_search), ("tpe-no-repeats", tpe_once))
        }
        figures.append(_confirmed(baseline, minutes, ours, peers))
        figures.append(_believed(baseline, ours, peers))
    raced = [search_race(about, true_gain, seed) for seed in seeds]
    shares = [100.0 * found.true / best for found, best in raced if best > 0]
    figures.append(
        Figure(
            name=f"race of {RACED}: winner's true gain of the best one's",
            unit="%",
            value=statistics.median(shares),
            low=min(shares),
            high=max(shares),
            target=">= 90",
            reached=statistics.median(shares) >= 90,
        )
    )
    return figures


def _confirmed(baseline: str, minutes: float, ours: list[Found], peers: dict[str, list[Found]]) -> Figure:
    gains = [100 * found.true for found in ours]
    theirs = {name: 100 * statistics.median(found.true for found in each) for name, each in peers.items()}
    value = statistics.median(gains)
    return Figure(
        name=f"confirmed true gain from {baseline} in {minutes:g} min, median",
        unit="% (log)",
        value=value,
        low=min(gains),
        high=max(gains),
        target=">= best peer",
        reached=value >= max(theirs.values()),
        peers=theirs,
    )


def _believed(baseline: str, ours: list[Found], peers: dict[str, list[Found]]) -> Figure:
    def error(each: list[Found]) -> float:
        return 100 * statistics.median(found.claimed - found.confirmed for found in each)

    errors = [100 * (found.claimed - found.confirmed) for found in ours]
    return Figure(
        name=f"claimed beyond confirmed, from {baseline}",
        unit="points",
        value=error(ours),
        low=min(errors),
        high=max(errors),
        peers={name: error(each) for name, each in peers.items()},
    )


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    emit("search_quality", arguments.quick, measure(quick=arguments.quick), arguments.output)


if __name__ == "__main__":
    main()
