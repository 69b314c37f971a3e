"""The race: all variants of an experiment at once, in rounds of short stints, and after each round the better half.

Sequential halving (Karnin, Koren, Somekh: "Almost optimal exploration in multi-armed bandits", 2013): every round costs
about the same, so that stints get longer as the field gets smaller, and most pairs are spent on telling the best ones
apart. The order within a round is drawn from the seed. Each stint has the baseline as its concurrent control, so
variants that were measured at different times still compare. The last one in the field goes on alone until its
evidence, of all its stints, suffices for `m/alpha`, and is confirmed on fresh pairs. For that it has as many pairs as a
trial of its own would have.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from controller.model.trial import TrialPlan
from controller.search.ledger import Entry, Proposal, Standing, Stop, Try, standings

# The rounds take this share of a variant's pairs at most; the rest is for its proof.
ROUNDS_SHARE = 0.75
FEWEST_PAIRS = 3
# Who may run alone: the winner of the rounds and, should it fail, the next best.
FINALS = 2


def propose(trials: Sequence[TrialPlan], seed: int, ledger: Sequence[Entry]) -> Proposal:
    """What to measure next in the race of one experiment's `trials`, or that it has ended.

    A pure function of its arguments: a prefix of the ledger gives what was proposed then.
    """
    plans = {plan.number: plan for plan in trials}
    standing = standings(ledger)
    for trial, stand in standing.items():
        if stand.ended == "proven-gain":
            return Stop(ranking=[trial], why=f"{stand.variant.name} has won")
    after = _after_each_stint(ledger)
    field = sorted(plans)
    left: list[Standing] = []
    number = 1
    while len(field) > 1:
        length = stint_pairs(trials, number)
        for trial in _drawn(field, seed, number):
            if len(after.get(trial, ())) < number:
                why = f"round {number}, {len(field)} in the field"
                return Try(trial=trial, variant=plans[trial].variant, pairs_per_host=length, why=why)
        running = [after[trial][number - 1] for trial in field if after[trial][number - 1].ended is None]
        running.sort(key=lambda stand: stand.rank, reverse=True)
        better = math.ceil(len(field) / 2)
        left = running[better:] + left
        field = [stand.trial for stand in running[:better]]
        number += 1
    return _alone(plans, field, left, standing)


def _alone(
    plans: dict[int, TrialPlan], field: list[int], left: list[Standing], standing: dict[int, Standing]
) -> Proposal:
    """The winner of the rounds goes on alone; when it fails, the next best that was still gaining."""
    least = min(plan.experiment.objective.minimum_effect for plan in plans.values())
    heirs = [stand.trial for stand in left if stand.effect is not None and stand.effect.estimate >= least]
    failed = ""
    for trial in (field + heirs)[:FINALS]:
        stand = standing.get(trial)
        if stand is None or stand.ended is None:
            if stand is not None and stand.alone:
                return Stop(why=f"{stand.variant.name} came to no verdict")
            plan = plans[trial]
            used = stand.stints if stand else 0
            why = f"alone{' after ' + failed + ' failed' if failed else ''}, {used} stints behind it"
            return Try(trial=trial, variant=plan.variant, pairs_per_host=plan.timing.planned_pairs, alone=True, why=why)
        failed = stand.variant.name
    return Stop(why=f"{failed} was not proven" if failed else "no variant is left in the field")


def stint_pairs(trials: Sequence[TrialPlan], number: int) -> int:
    """Pairs a host of each stint in round `number`: twice as many as in the round before."""
    plan = trials[0]
    rounds = max(1, math.ceil(math.log2(len(trials))))
    first = math.floor(ROUNDS_SHARE * plan.timing.maximum_pairs / ((1 << rounds) - 1))
    pairs = max(FEWEST_PAIRS, first) << (number - 1)
    return math.ceil(pairs / len(plan.hosts))


def _after_each_stint(ledger: Sequence[Entry]) -> dict[int, list[Standing]]:
    """Trial -> where it stood after its first, second ... stint; what has ended stays as it was."""
    found: dict[int, list[Standing]] = {}
    for index, entry in enumerate(ledger):
        found.setdefault(entry.trial, []).append(standings(ledger[: index + 1])[entry.trial])
    return found


def _drawn(field: Sequence[int], seed: int, number: int) -> list[int]:
    """The order of a round, by a hash of seed, round and trial: anyone can repeat it."""
    return sorted(field, key=lambda trial: hashlib.sha256(f"{seed}/race/{number}/{trial}".encode()).digest())
