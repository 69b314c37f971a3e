"""Peers of our search, which look once at each setting and believe their best look: random search, Optuna's TPE, and
the default optimiser of mlos_bench (SMAC by mlos_core, an optional group: docs/dependencies.md).

A peer has the form of our own proposer, `controller.search.bayes.propose`. So `python -m benchmarks.search_peers PEER
optimize --strategy bayes ...` is the command `controller` with the peer in its place: what a look is, what is unsafe
and which seconds count is the product's, the same for all (a peer's own thinking is free). A peer names no finalist:
its run confirms and keeps nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, islice
from typing import Any, Protocol
from unittest.mock import patch

from controller.model.experiment import Choice, Experiment, IntegerRange, NumberRange, Range
from controller.model.ranges import value_of
from controller.model.run import Budget
from controller.search import bayes, draws
from controller.search.bayes import SearchPlan, Unsafe
from controller.search.ledger import Entry, Proposal, Stop, looks, seconds_spent, standings
from controller.search.space import Parameters, applies

# mlos_bench gives its optimiser so many trials unless it is told otherwise; SMAC takes a quarter of them to begin with.
SMAC_TRIALS = 100
# TPE draws again where it drew something unsafe or known; after so many draws chance does.
TPE_DRAWS = 20


class Peer(Protocol):
    """The next look at a setting, or the end of the search, as `bayes.propose`."""

    def __call__(self, search: SearchPlan, ledger: Sequence[Entry]) -> Proposal: ...


def _spent(ledger: Sequence[Entry], budget: Budget) -> str:
    """Why the search is over; empty while it goes on."""
    if seconds_spent(ledger) >= 60 * budget.minutes:
        return f"the budget of {budget.minutes:g} minutes is spent"
    return f"the budget of {budget.trials} settings is spent" if len(ledger) >= budget.trials else ""


@dataclass(frozen=True)
class OnceEach:
    """One look at each setting that Optuna draws: by its TPE once some are known, or without `model` at random."""

    model: bool

    def __call__(self, search: SearchPlan, ledger: Sequence[Entry]) -> Proposal:
        if over := _spent(ledger, search.budget):
            return Stop(why=over)
        number = len(ledger)
        seed = search.seed * 100_003 + search.first + number
        known = looks(ledger)
        drawn: Iterator[Parameters] = islice(draws.at_random(search.experiment, seed), bayes.DRAWS)
        if self.model and number >= bayes.startup(search.experiment):
            drawn = chain(islice(draws.by_tpe(search.experiment, known, seed), TPE_DRAWS), drawn)
        for parameters in drawn:
            if search.is_new(parameters, known):
                return search.look_at_new(number, parameters)
        return Stop(why="no safe setting is left that was not tried")


random_search, tpe_once = OnceEach(model=False), OnceEach(model=True)


def drawn_settings(experiment: Experiment, seed: int, count: int, unsafe: Unsafe) -> list[Parameters]:
    """So many safe settings at random."""
    drawn = islice(draws.at_random(experiment, seed), bayes.DRAWS)
    return [parameters for parameters in drawn if not unsafe(parameters)][:count]


class Smac:
    """mlos_core's default optimiser, set up as mlos_bench does it. It keeps its state: one object a search.

    Its space has no conditions (as mlos_bench's has none): a parameter that does not apply is drawn and left out.
    """

    def __init__(self) -> None:
        self._optimizer: Any = None
        self._pending: Any = None

    def __call__(self, search: SearchPlan, ledger: Sequence[Entry]) -> Proposal:
        if over := _spent(ledger, search.budget):
            return Stop(why=over)
        if self._optimizer is None:
            self._optimizer = _smac_optimizer(search.experiment, search.seed)
        if self._pending is not None:
            self._tell(_gain(ledger))
        for _ in range(bayes.DRAWS):
            self._pending = self._optimizer.suggest()
            parameters = _chosen(search.experiment, self._pending.config.to_dict())
            if not search.unsafe(parameters):
                return search.look_at_new(len(ledger), parameters)
            self._tell(_worst(ledger))
        return Stop(why="no safe setting was suggested")

    def _tell(self, gain: float) -> None:
        import pandas

        self._optimizer.register(self._pending.complete(pandas.Series({"loss": -gain})))
        self._pending = None


def _worst(ledger: Sequence[Entry]) -> float:
    """The worst gain that was measured, never above 0."""
    return min([0.0, *(each.gain for each in standings(ledger).values() if math.isfinite(each.gain))])


def _gain(ledger: Sequence[Entry]) -> float:
    """ln(control / variant) of the last look; what broke a guardrail or was not measured is as bad as the worst."""
    last = standings(ledger[-1:])[ledger[-1].trial]
    broken = str(last.ended).startswith("guardrail-") or not math.isfinite(last.gain)
    return _worst(ledger) if broken else last.gain


def _smac_optimizer(experiment: Experiment, seed: int) -> Any:
    import ConfigSpace
    from mlos_core.optimizers import OptimizerFactory, OptimizerType

    space = ConfigSpace.ConfigurationSpace(seed=seed)
    for name, each in experiment.ranges.items():
        match each:
            case IntegerRange(step=1):
                parameter = ConfigSpace.Integer(name, (each.low, each.high), log=each.log)
            case IntegerRange():
                parameter = ConfigSpace.Integer(name, (0, (each.high - each.low) // each.step))
            case NumberRange():
                parameter = ConfigSpace.Float(name, (each.low, each.high), log=each.log)
            case Choice(ordered=True):
                parameter = ConfigSpace.Integer(name, (0, len(each.values) - 1))
            case Choice():
                # Text, as mlos_bench has it: numbers come back as others than were suggested, and SMAC waits for ever.
                parameter = ConfigSpace.Categorical(name, [str(place) for place in range(len(each.values))])
        space.add(parameter)
    return OptimizerFactory.create(
        parameter_space=space,
        optimization_targets=["loss"],
        optimizer_type=OptimizerType.SMAC,
        optimizer_kwargs={"seed": seed, "max_trials": SMAC_TRIALS},
    )


def _chosen(experiment: Experiment, drawn: Mapping[str, float | str]) -> Parameters:
    """The setting of numbers that were drawn for every range: those that apply, as values of their parameters."""
    chosen: Parameters = {}
    for name, each in experiment.ranges.items():
        if applies(each, experiment.requires, chosen):
            chosen[name] = value_of(each, _unscaled(each, float(drawn[name])))
    return chosen


def _unscaled(each: Range, drawn: float) -> float:
    """Whole numbers in steps are drawn as the number of steps."""
    if isinstance(each, IntegerRange) and each.step > 1:
        return each.low + each.step * drawn
    return drawn


PEERS: Mapping[str, Callable[[], Peer]] = {
    "random": lambda: random_search,
    "tpe-no-repeats": lambda: tpe_once,
    "smac": Smac,
}
HOW_TO_INSTALL = "smac is not installed: uv pip install --group peers"


def installed(peer: str) -> bool:
    """Whether a peer's packages are there."""
    return peer != "smac" or all(find_spec(package) for package in ("mlos_core", "smac", "ConfigSpace"))


def main() -> int:
    peer, *arguments = sys.argv[1:]
    from controller.cli.main import main as controller

    with patch.object(bayes, "propose", PEERS[peer]()):
        return controller(arguments)


if __name__ == "__main__":
    sys.exit(main())
