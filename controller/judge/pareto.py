"""The Pareto set of an experiment: what no other variant dominates, by the intervals of every goal's effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.model.experiment import Experiment, GoalsObjective
from controller.model.metrics import Metric
from controller.model.run import ParetoSet
from controller.model.trial import Effect, ReasonCode, TrialResult

BASELINE = "baseline"
_SAME = Effect(estimate=0.0, low=0.0, high=0.0)
# Only what gains ended may be chosen: no guardrail, no damaged evidence, no harm on the live instance.
CHOOSABLE: frozenset[ReasonCode] = frozenset(
    {"proven-gain", "futile", "undecided", "slower", "trade-off", "not-confirmed", "commit-failed"}
)

Effects = Mapping[Metric, Effect]


def pareto_sets(experiments: Sequence[Experiment], results: Sequence[TrialResult]) -> list[ParetoSet]:
    """One for each pareto experiment of which a variant was measured, against one baseline all of them."""
    found = []
    for experiment in experiments:
        objective = experiment.objective
        if not isinstance(objective, GoalsObjective) or objective.combine != "pareto":
            continue
        measured = {BASELINE: {goal.metric: _SAME for goal in objective.goals}}
        for result in results:
            effects = _effects(result)
            if result.experiment == experiment.name and effects.keys() == measured[BASELINE].keys():
                measured[result.variant] = effects
        if len(measured) > 1:
            found.append(_of(experiment.name, measured))
    return found


def _effects(result: TrialResult) -> dict[Metric, Effect]:
    told = {goal.metric: goal.confirmed_effect or goal.effect for goal in result.goals}
    choosable = result.reason in CHOOSABLE
    return {metric: effect for metric, effect in told.items() if choosable and effect is not None}


def _of(experiment: str, measured: Mapping[str, Effects]) -> ParetoSet:
    dominated = [
        name for name, effects in measured.items() if any(dominates(other, effects) for other in measured.values())
    ]
    return ParetoSet(
        experiment=experiment, members=[name for name in measured if name not in dominated], dominated=dominated
    )


def dominates(ours: Effects, theirs: Effects) -> bool:
    """Clearly better in one goal, clearly worse in none: clearly is when the intervals do not overlap."""
    better = any(ours[metric].low > theirs[metric].high for metric in ours)
    return better and not any(ours[metric].high < theirs[metric].low for metric in ours)
