"""The search of ranges: Optuna draws settings, a model of what was seen chooses, what looks promising is repeated.

The first settings are drawn at random. From then on Optuna's draws, and mixtures of them with the best settings so
far, are candidates, and the next look is at the one with the largest expected improvement (`additive_model`). All of
it is rebuilt from the ledger at every call and seeded by the number of the proposal, so that a ledger gives one next
proposal, whoever asks and however often.

A setting is measured for a few pairs. Only if that makes it look better than the best known one, it is measured again,
before anything is built on it: the first look at the best of many is too good to be true. What the search believes in
the end is only a candidate; it is proven on fresh pairs by an ordinary trial.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from controller.judge.evidence import log_gain
from controller.model.experiment import Experiment, Variant
from controller.model.run import Budget
from controller.search.draws import at_random, by_tpe
from controller.search.ledger import Entry, Look, Proposal, Standing, Stop, Try, looks, seconds_spent, standings
from controller.search.space import Parameters, mixed

# Pairs of one look, over all hosts: enough for an interval, and for evidence of futility (2**5 > 20) before their end.
LOOK_PAIRS = 6
# Looks that a promising setting gets in all.
LOOKS = 3
# Intervals wider than this many minimum effects could hide a gain worth keeping, or fake one.
MATERIAL = 2.0
# The last tenth of the minutes is for telling the leaders apart.
EXPLORED = 0.9
FINALISTS = 2
# Settings drawn at random, and by TPE, from which the next one comes.
DRAWS, TPE_DRAWS = 200, 16
# Each round mixes the best settings with these draws, of which up to so many parameters are taken, so often; the best
# go on to the next round.
MIXED, TAKEN, ROUNDS, SURVIVORS = 200, 3, 3, 10
# Fewer looks teach nothing.
FEWEST = 3
# The window over which progress is measured, and the least number of settings before the search may give up.
WINDOW = 12
_SEEDS = 2**31

# Why parameters may not be pushed; empty when they may (`safe_space.unsafe`).
Unsafe = Callable[[Parameters], str]


@dataclass(frozen=True)
class SearchPlan:
    """What a search of ranges asks, the same from its first proposal to its last.

    hosts: hosts that measure together.
    unsafe: why parameters may not be pushed; empty when they may (`safe_space.unsafe`).
    first: the number of the first trial.
    """

    experiment: Experiment
    seed: int
    budget: Budget
    hosts: int
    unsafe: Unsafe
    first: int = 1

    def is_new(self, setting: Parameters, known: Sequence[Look]) -> bool:
        """Whether a setting is safe, and not known."""
        return all(setting != look.parameters for look in known) and not self.unsafe(setting)

    def look(self, trial: int, variant: Variant, why: str) -> Try:
        """One look at a setting."""
        return Try(trial=trial, variant=variant, pairs_per_host=math.ceil(LOOK_PAIRS / self.hosts), why=why)

    def look_at_new(self, known: int, parameters: Parameters) -> Try:
        """The first look at a setting, when so many others are known."""
        number = self.first + known
        why = f"setting {known + 1} of at most {self.budget.trials}"
        return self.look(number, Variant(name=f"try-{number}", parameters=parameters), why)


def propose(search: SearchPlan, ledger: Sequence[Entry]) -> Proposal:
    """The next look at a setting, or that the search has ended, with its finalists."""
    experiment = search.experiment
    standing = standings(ledger)
    ended = _ended(standing, search.budget, ledger)
    again = None
    if ended or len(standing) >= startup(experiment):
        again = _promising(standing, None if ended else MATERIAL * experiment.objective.minimum_effect)
    if again is not None:
        why = f"look {again.stints + 1} at {again.variant.name}, the best so far if it holds"
        return search.look(again.trial, again.variant, why)
    parameters = None if ended else next_setting(search, looks(ledger))
    if parameters is None:
        return Stop(ranking=_ranking(standing, experiment), why=ended or "no safe setting is left that was not tried")
    return search.look_at_new(len(standing), parameters)


def _promising(standing: dict[int, Standing], tolerated: float | None) -> Standing | None:
    """The best setting by what was seen, while its lead may be mere noise and it has had few looks.

    While the search goes on, noise up to an interval of `tolerated` is left to the model, which smooths over it: a
    look at something new is worth more. At the end (None) the leaders are told apart.
    """
    running = [each for each in standing.values() if each.ended is None and each.gain > 0]
    if not running:
        return None
    best, *others = sorted(running, key=lambda each: each.rank, reverse=True)
    if best.effect is None or not others or best.stints >= LOOKS:
        return None
    noisy = tolerated is None or best.effect.high - best.effect.low > tolerated
    return best if noisy and log_gain(best.effect.low) < others[0].gain else None


def startup(experiment: Experiment) -> int:
    """How many settings are drawn at random before there is anything to model."""
    return max(6, 2 * len(experiment.ranges) // 3)


def _ranking(standing: dict[int, Standing], experiment: Experiment) -> list[int]:
    """The finalists: those looked at more than once first, then by gain; only what may be worth keeping."""
    least = experiment.objective.minimum_effect
    able = [
        each
        for each in standing.values()
        if each.ended is None and each.effect is not None and each.effect.high >= least
    ]
    able = [each for each in able if each.gain > 0]
    able.sort(key=lambda each: (each.stints > 1, each.rank), reverse=True)
    return [each.trial for each in able[:FINALISTS]]


def _ended(standing: dict[int, Standing], budget: Budget, ledger: Sequence[Entry]) -> str:
    """Why the search is over; empty while it goes on."""
    if len(standing) >= budget.trials:
        return f"the budget of {budget.trials} settings is spent"
    spent = seconds_spent(ledger) / 60
    if spent >= EXPLORED * budget.minutes:
        return f"the budget of {budget.minutes:g} minutes is spent"
    bests = _best_after_each(ledger)
    if len(standing) >= 2 * WINDOW and budget.least_progress > 0:
        recent = list(standing)[-WINDOW]
        start = next(index for index, entry in enumerate(ledger) if entry.trial == recent)
        minutes = seconds_spent(ledger[start:]) / 60
        progress = bests[-1] - (bests[start - 1] if start else 0.0)
        if minutes > 0 and progress / minutes < budget.least_progress:
            return f"the last {WINDOW} settings brought {progress:.1%} in {minutes:.1f} minutes: diminishing returns"
    return ""


def _best_after_each(ledger: Sequence[Entry]) -> list[float]:
    """The gain of the best setting after each stint, never below 0: the baseline is always there."""
    gains: dict[int, float] = {}
    bests: list[float] = []
    for entry in ledger:
        judgement = entry.judgement
        usable = entry.ended is None and judgement is not None and judgement.effect is not None
        gains[entry.trial] = judgement.effect.estimate if usable and judgement and judgement.effect else 0.0
        bests.append(max(0.0, *gains.values()))
    return bests


# --- what to look at next ---------------------------------------------------------------------------------------------


def next_setting(search: SearchPlan, known: Sequence[Look]) -> Parameters | None:
    """A safe setting that is not known: the most promising one; None when none was found."""
    seed = _seed(search, len(known))
    drawn = (each for each in islice(at_random(search.experiment, seed), DRAWS) if search.is_new(each, known))
    usable = [look for look in known if look.gain is not None]
    if len(known) < startup(search.experiment) or len(usable) < FEWEST:
        return next(drawn, None)
    by_model = (
        each for each in islice(by_tpe(search.experiment, known, seed), TPE_DRAWS) if search.is_new(each, known)
    )
    candidates = [*drawn, *by_model]
    return _most_promising(search, known, candidates, random.Random(seed)) if candidates else None  # noqa: S311 no secret


def _seed(search: SearchPlan, known: int) -> int:
    digest = hashlib.sha256(f"{search.seed}/{search.experiment.name}/{known}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % _SEEDS


def _most_promising(
    search: SearchPlan, known: Sequence[Look], drawn: Sequence[Parameters], chance: random.Random
) -> Parameters:
    """The one with the largest expected improvement of the draws and of their mixtures with the best settings."""
    # numpy comes with Optuna, and takes a moment.
    from controller.search.additive_model import AdditiveModel

    model = AdditiveModel(search.experiment, known)
    gains = sorted(((look.gain, place) for place, look in enumerate(known) if look.gain is not None), reverse=True)
    best = [known[place].parameters for _, place in gains[:SURVIVORS]]
    candidates = list(drawn)
    for _ in range(ROUNDS):
        mixtures = [_mixture(search.experiment, best, drawn, chance) for _ in range(MIXED)]
        candidates += [each for each in mixtures if each is not None and search.is_new(each, known)]
        improvements = model.expected_improvement(candidates)
        ranked = sorted(range(len(candidates)), key=lambda place: improvements[place], reverse=True)
        best = candidates = [candidates[place] for place in ranked[:SURVIVORS]]
    return best[0]


def _mixture(
    experiment: Experiment, best: Sequence[Parameters], drawn: Sequence[Parameters], chance: random.Random
) -> Parameters | None:
    """One of the best settings with a few parameters of one of the draws; None where that does not make a setting."""
    names = list(experiment.ranges)
    taken = chance.sample(names, chance.randint(1, min(TAKEN, len(names))))
    return mixed(experiment, chance.choice(best), chance.choice(drawn), taken)
