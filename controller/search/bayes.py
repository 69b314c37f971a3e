"""The search of ranges: Optuna proposes, noise is met by repeats of the promising ones alone.

TPE (multivariate, grouped by conditions) models good and bad settings; it is rebuilt from the ledger at every call and
seeded by the number of the proposal, so that a ledger gives one next proposal, whoever asks and however often.

A setting is measured for a few pairs. Only if that makes it look better than the best known one, it is measured again,
before anything is built on it: the first look at the best of many is too good to be true. What the search believes in
the end is only a candidate; it is proven on fresh pairs by an ordinary trial.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.judge.evidence import log_gain
from controller.model.errors import BadInput
from controller.model.experiment import Choice, Experiment, IntegerRange, NumberRange, Variant
from controller.model.ranges import drawn_from, value_of
from controller.model.run import Budget
from controller.search.ledger import Entry, Proposal, Standing, Stop, Try, seconds_spent, standings
from controller.search.space import Parameters, applies

if TYPE_CHECKING:
    import optuna

# Pairs of one look, over all hosts: enough for an interval, and for evidence of futility (2**5 > 20) before their end.
LOOK_PAIRS = 6
# Looks that a promising setting gets in all.
LOOKS = 3
# Intervals wider than this many minimum effects could hide a gain worth keeping, or fake one.
MATERIAL = 2.0
# The last tenth of the minutes is for telling the leaders apart.
EXPLORED = 0.9
FINALISTS = 2
# Proposals that are unsafe or known are drawn again, so often.
DRAWS = 200
# The window over which progress is measured, and the least number of settings before the search may give up.
WINDOW = 12
_SEEDS = 2**31

Unsafe = Callable[[Parameters], str]
# No value for these: nothing was measured, or nothing that can be trusted.
_FAILED = frozenset(
    {"rejected-by-nginx", "measurement-invalid", "guardrail-missing-data", "host-failed", "interrupted"}
)


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
    if ended or len(standing) >= _startup(experiment):
        again = _promising(standing, None if ended else MATERIAL * experiment.objective.minimum_effect)
    if again is not None:
        why = f"look {again.stints + 1} at {again.variant.name}, the best so far if it holds"
        return search.look(again.trial, again.variant, why)
    parameters = None if ended else _draw(search, ledger)
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


def _startup(experiment: Experiment) -> int:
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


# --- Optuna -----------------------------------------------------------------------------------------------------------


def require_optuna() -> None:
    """Raises BadInput when it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise BadInput(
            "the search of ranges needs Optuna, which is not installed",
            next_step="pip install 'nginx-ratchet[search]', or name experiments with variants: --strategy race",
        ) from None


def _draw(search: SearchPlan, ledger: Sequence[Entry]) -> Parameters | None:
    """A safe setting that is not in the ledger; None when none was found."""
    experiment = search.experiment
    known = [entry.variant.parameters for entry in ledger]
    standing = standings(ledger)
    told = [_told(experiment, stand, ledger) for stand in standing.values()]
    for attempt in range(DRAWS):
        digest = hashlib.sha256(f"{search.seed}/{experiment.name}/{len(told)}/{attempt}".encode()).digest()
        narrow = attempt < DRAWS // 2
        parameters = _ask(experiment, told, int.from_bytes(digest[:4], "big") % _SEEDS, narrow=narrow)
        if parameters and parameters not in known and not search.unsafe(parameters):
            return parameters
    return None


def _ask(experiment: Experiment, told: list[optuna.trial.FrozenTrial], seed: int, *, narrow: bool) -> Parameters:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    startup = _startup(experiment) if narrow else len(told) + 1
    with warnings.catch_warnings():
        # Groups of conditional parameters have been "experimental" since Optuna 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=startup)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(told)
    trial = study.ask()
    chosen: Parameters = {}
    for name, each in experiment.ranges.items():
        if applies(each, experiment.requires, chosen):
            chosen[name] = value_of(each, _suggest(trial, name, each))
    return chosen


def _suggest(trial: optuna.trial.Trial, name: str, each: IntegerRange | NumberRange | Choice) -> float:
    match each:
        case IntegerRange():
            return trial.suggest_int(name, each.low, each.high, step=each.step, log=each.log)
        case NumberRange():
            return trial.suggest_float(name, each.low, each.high, log=each.log)
        case Choice(ordered=True):
            return trial.suggest_int(name, 0, len(each.values) - 1)
        case Choice():
            return int(trial.suggest_categorical(name, list(range(len(each.values)))))


def _told(experiment: Experiment, stand: Standing, ledger: Sequence[Entry]) -> optuna.trial.FrozenTrial:
    """One setting as Optuna's: its gain, or a failure. What broke a guardrail is as bad as the worst that was seen."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    params: dict[str, float | int] = {}
    for name, value in stand.variant.parameters.items():
        each = experiment.ranges[name]
        drawn = drawn_from(each, value)
        match each:
            case IntegerRange():
                distributions[name] = IntDistribution(each.low, each.high, log=each.log, step=each.step)
            case NumberRange():
                distributions[name] = FloatDistribution(each.low, each.high, log=each.log)
            case Choice(ordered=True):
                distributions[name] = IntDistribution(0, len(each.values) - 1)
            case Choice():
                distributions[name] = CategoricalDistribution(list(range(len(each.values))))
        params[name] = drawn if isinstance(each, NumberRange) else int(drawn)
    value = _worst(ledger) if str(stand.ended).startswith("guardrail-") else stand.gain
    failed = stand.ended in _FAILED or not math.isfinite(value)
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
        value=None if failed else value,
        params=params,
        distributions=distributions,
    )


def _worst(ledger: Sequence[Entry]) -> float:
    gains = [stand.gain for stand in standings(ledger).values() if math.isfinite(stand.gain)]
    return min([0.0, *gains])
