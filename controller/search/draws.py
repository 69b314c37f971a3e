"""Settings that Optuna draws from an experiment's ranges: at random, or by its TPE from what was seen.

TPE (multivariate, grouped by conditions) models good and bad settings. Studies are rebuilt from the looks at every call
and seeded, so that the same looks give the same draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from controller.model.errors import BadInput
from controller.model.experiment import Choice, Experiment, IntegerRange, NumberRange, ParameterValue, Range
from controller.model.ranges import drawn_from, value_of
from controller.search.ledger import Look
from controller.search.space import Parameters, applies

if TYPE_CHECKING:
    import optuna


def require_optuna() -> None:
    """Raises BadInput when it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise BadInput(
            "the search of ranges needs Optuna, which is not installed",
            next_step="pip install 'nginx-ratchet[search]', or name experiments with variants: --strategy race",
        ) from None


def at_random(experiment: Experiment, seed: int) -> Iterator[Parameters]:
    """Settings without end, each range by itself."""
    import optuna

    return _asked(experiment, optuna.samplers.RandomSampler(seed=seed), [])


def by_tpe(experiment: Experiment, looks: Sequence[Look], seed: int) -> Iterator[Parameters]:
    """Settings of which TPE expects much, without end."""
    import optuna

    with warnings.catch_warnings():
        # Groups of conditional parameters have been "experimental" since Optuna 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=0)
    return _asked(experiment, sampler, looks)


def _asked(experiment: Experiment, sampler: optuna.samplers.BaseSampler, looks: Sequence[Look]) -> Iterator[Parameters]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_told(experiment, look) for look in looks])
    while True:
        yield _one(experiment, study.ask())


def _one(experiment: Experiment, trial: optuna.trial.Trial) -> Parameters:
    drawn: Parameters = {}
    for name, each in experiment.ranges.items():
        if applies(each, experiment.requires, drawn):
            drawn[name] = value_of(each, _suggest(trial, name, each))
    return drawn


def _suggest(trial: optuna.trial.Trial, name: str, each: Range) -> float:
    match each:
        case IntegerRange():
            return trial.suggest_int(name, each.low, each.high, step=each.step, log=each.log)
        case NumberRange():
            return trial.suggest_float(name, each.low, each.high, log=each.log)
        case Choice(ordered=True):
            return trial.suggest_int(name, 0, len(each.values) - 1)
        case Choice():
            return int(trial.suggest_categorical(name, list(range(len(each.values)))))


def _told(experiment: Experiment, look: Look) -> optuna.trial.FrozenTrial:
    """One setting as Optuna's: its gain, or a failure."""
    import optuna

    state = optuna.trial.TrialState.FAIL if look.gain is None else optuna.trial.TrialState.COMPLETE
    ranges = {name: experiment.ranges[name] for name in look.parameters}
    return optuna.trial.create_trial(
        state=state,
        value=look.gain,
        params={name: _drawn(each, look.parameters[name]) for name, each in ranges.items()},
        distributions={name: _distribution(each) for name, each in ranges.items()},
    )


def _drawn(each: Range, value: ParameterValue) -> float:
    drawn = drawn_from(each, value)
    return drawn if isinstance(each, NumberRange) else int(drawn)


def _distribution(each: Range) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match each:
        case IntegerRange():
            return IntDistribution(each.low, each.high, log=each.log, step=each.step)
        case NumberRange():
            return FloatDistribution(each.low, each.high, log=each.log)
        case Choice(ordered=True):
            return IntDistribution(0, len(each.values) - 1)
        case Choice():
            return CategoricalDistribution(list(range(len(each.values))))
