"""How often does the rule keep what is no better, and how often does it find what is?

Simulated hosts (`decision_worlds`) and recorded ones (`recorded_worlds`), the judge's own rule, and the rules of its
peers on the same hosts.
Run `python -m benchmarks.decision_quality [--quick] [--output json]`: half a minute quick, some minutes in full.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy

from benchmarks.decision_rules import Decided, kayenta, mann_whitney, median_falls_by, peeked_t_test, ratchet
from benchmarks.decision_worlds import (
    DUET_PAIR_SECONDS,
    DUET_PAIRS,
    SWITCHBACK_PAIR_SECONDS,
    SWITCHBACK_PAIRS,
    WORLDS,
    Floats,
    World,
)
from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.recorded_worlds import recorded_worlds
from controller.judge.decision import LEAST_THRESHOLD, Rule
from controller.judge.evidence import log_gain

SEED = 20261124
RUNS, QUICK_RUNS = 2000, 200
EFFECTS = (0.02, 0.05, 0.10, 0.25)
ALPHA, MINIMUM_EFFECT = 0.05, 0.03
CAMPAIGN = 10
CONFIRM_PAIRS = 5
# A proof may take so many times the pairs that no rule can do without.
PROOF_FACTOR = 1.3
POWER_TARGETS = {0.05: 80.0, 0.10: 95.0}


@dataclass(frozen=True)
class Look:
    """How Ratchet looks at a host: its design, with as many pairs as it may take; whether its power has targets."""

    name: str
    design: Literal["duet", "switchback"]
    planned: int
    pair_seconds: float
    has_targets: bool = True

    def gains(self, draw: numpy.random.Generator, world: World, hosts: Floats, effect: float) -> Floats:
        """Runs x planned pairs."""
        seen = world.duet_gains if self.design == "duet" else world.switchback_gains
        return seen(draw, hosts, effect)[:, : self.planned]

    def rule(self, variants: int = 1) -> Rule:
        return Rule(
            threshold=max(LEAST_THRESHOLD, variants / ALPHA),
            least_gain=log_gain(MINIMUM_EFFECT),
            minimum_pairs=5,
            maximum_pairs=self.planned - CONFIRM_PAIRS,
            confirm_pairs=CONFIRM_PAIRS,
        )


LOOKS = (
    Look("duet", "duet", DUET_PAIRS, DUET_PAIR_SECONDS),
    Look("switchback", "switchback", SWITCHBACK_PAIRS, SWITCHBACK_PAIR_SECONDS),
    Look("switchback of 40", "switchback", DUET_PAIRS, SWITCHBACK_PAIR_SECONDS, has_targets=False),
)
BEFORE_AFTER = {
    "p50 -10 % before/after": median_falls_by(0.10),
    "p50 -5 % before/after": median_falls_by(0.05),
    "Mann-Whitney before/after": mann_whitney,
    "Kayenta-style before/after": kayenta,
}
PEEKED = "t-test after each pair"


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share, in percent."""
    z = 1.959964
    share = hits / runs
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def _generator(*key: object) -> numpy.random.Generator:
    """Every cell has its own numbers, whatever else is run."""
    return numpy.random.default_rng([SEED, zlib.crc32(repr(key).encode())])


class Cell:
    """One world and one true effect: the same hosts for every rule."""

    def __init__(self, world: World, effect: float, runs: int) -> None:
        self.world = world
        self.effect = effect
        self.runs = runs
        self._hosts = world.hosts(_generator(world.name, effect, "level"), runs)
        seen = world.before_after(_generator(world.name, effect, "before/after"), self._hosts, effect)
        self.before_after = {name: rule(seen) for name, rule in BEFORE_AFTER.items()}

    def gains(self, look: Look) -> Floats:
        return look.gains(_generator(self.world.name, self.effect, look.name), self.world, self._hosts, self.effect)

    def peers(self, gains: Floats) -> dict[str, float]:
        """Percent of runs that each peer keeps; the t-test looks at the very pairs that Ratchet sees."""
        kept = self.before_after | {PEEKED: peeked_t_test(gains)}
        return {name: round(100 * float(runs.mean()), 2) for name, runs in kept.items()}


def _share(name: str, hits: int, runs: int, **more: object) -> Figure:
    low, high = wilson(hits, runs)
    return Figure(name=name, unit="%", value=100 * hits / runs, low=low, high=high, **more)  # type: ignore[arg-type]


def false_keeps(cells: Sequence[Cell], look: Look, *, quick: bool, where: str = "") -> list[Figure]:
    """Figures of alike configurations: one trial alone, ten in a campaign, and the noise they were judged in.

    `where` tells the campaigns of these worlds from those of others.
    """
    figures = []
    campaigns, failed = 0, 0
    for cell in cells:
        gains = cell.gains(look)
        kept = sum(decided.kept for decided in ratchet(gains, look.rule()))
        _, high = wilson(kept, cell.runs)
        figures.append(
            _share(
                f"false keep, A/A, {look.name}, {cell.world.name}",
                kept,
                cell.runs,
                target="<= 1 %" if quick else "<= 1 %, bound <= 1.5 %",
                reached=kept <= 0.01 * cell.runs and (quick or high <= 1.5),
                peers=cell.peers(gains),
            )
        )
        figures.append(
            Figure(
                name=f"noise of one pair, {look.name}, {cell.world.name}",
                unit="% (standard deviation of g)",
                value=100 * float(gains.std()),
            )
        )
        several = [decided.kept for decided in ratchet(gains, look.rule(CAMPAIGN))]
        groups = [several[start : start + CAMPAIGN] for start in range(0, len(several), CAMPAIGN)]
        campaigns += len(groups)
        failed += sum(any(group) for group in groups)
    figures.append(
        _share(
            f"any false keep, ten A/A trials, {look.name}{where}",
            failed,
            campaigns,
            target="<= 5 %",
            reached=failed <= 0.05 * campaigns,
            peers=_campaign_peers(cells, look),
        )
    )
    return figures


def _campaign_peers(cells: Sequence[Cell], look: Look) -> dict[str, float]:
    failures: dict[str, list[bool]] = {}
    for cell in cells:
        for name, kept in (cell.before_after | {PEEKED: peeked_t_test(cell.gains(look))}).items():
            failures.setdefault(name, []).extend(any(group) for group in kept.reshape(-1, CAMPAIGN).tolist())
    return {name: round(100 * sum(found) / len(found), 2) for name, found in failures.items()}


def power(cell: Cell, look: Look) -> list[Figure]:
    """How often a true effect is kept, and how soon the large one."""
    gains = cell.gains(look)
    decisions = ratchet(gains, look.rule())
    kept = sum(decided.kept for decided in decisions)
    target = POWER_TARGETS.get(cell.effect) if look.has_targets else None
    below = cell.effect < MINIMUM_EFFECT
    figures = [
        _share(
            f"{'keep of' if below else 'power at'} {100 * cell.effect:g} %, {look.name}, {cell.world.name}",
            kept,
            cell.runs,
            target="" if target is None else f">= {target:g} %",
            reached=None if target is None else kept >= target / 100 * cell.runs,
            peers=cell.peers(gains),
        )
    ]
    if cell.effect == max(EFFECTS):
        figures.extend(_time_to_keep([decided for decided in decisions if decided.kept], cell, look))
    return figures


def _time_to_keep(kept: Sequence[Decided], cell: Cell, look: Look) -> list[Figure]:
    """Pairs until the proof, which has a bound, and until the end: fresh pairs are the price of a true effect."""
    if not kept:
        return []
    where = f"{100 * cell.effect:g} %, {look.name}, {cell.world.name}"
    unit = f"pairs of {look.pair_seconds:g} s"
    proven = _pairs(f"pairs to prove {where}", unit, [decided.proven_after for decided in kept])
    limit = PROOF_FACTOR * look.rule().fewest_pairs
    proven = replace(proven, target=f"<= {limit:.1f} ({PROOF_FACTOR:g} x the fewest)", reached=proven.value <= limit)
    return [proven, _pairs(f"pairs to keep {where}", unit, [decided.pairs for decided in kept])]


def _pairs(name: str, unit: str, counts: Sequence[int]) -> Figure:
    low, high = (float(numpy.quantile(counts, share)) for share in (0.05, 0.95))
    return Figure(name=name, unit=unit, value=float(numpy.mean(counts)), low=low, high=high)


def measure(*, quick: bool, runs: int | None = None) -> list[Figure]:
    """All figures, in the order in which they are told."""
    number = runs or (QUICK_RUNS if quick else RUNS)
    recorded: list[World] = [*recorded_worlds()]
    groups: list[tuple[Sequence[World], str]] = [(WORLDS, ""), *(([world], f", {world.name}") for world in recorded)]
    figures: list[Figure] = []
    for worlds, where in groups:
        nulls = [Cell(world, 0.0, number) for world in worlds]
        figures += [figure for look in LOOKS for figure in false_keeps(nulls, look, quick=quick, where=where)]
    for effect in EFFECTS:
        for world in (*WORLDS, *recorded):
            cell = Cell(world, effect, number)
            figures += [figure for look in LOOKS for figure in power(cell, look)]
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments("False keeps and power of the decision rule, beside its peers.", arguments)
    emit("decision_quality", options.quick, measure(quick=options.quick), options.output)


if __name__ == "__main__":
    main()
