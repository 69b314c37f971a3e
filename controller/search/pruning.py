"""Pruning: which parameters of a winner are worth their line in the configuration?

Leave one out: the winner is the control, the same without one parameter the variant. When no harm shows the parameter
goes, and the next is asked of what is left. Losses too small to see may add up: so what is left meets the whole winner,
and until it holds the gain, the half of the left-out parameters that seemed to cost most comes back. Then it is proven
against the baseline like any variant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from controller.model.experiment import Experiment, Frozen, ParameterValue
from controller.model.run import Importance
from controller.model.trial import TrialResult
from controller.search.space import without

# Pairs of one question, over all hosts: ten small losses in a row are evidence of 2**10.
PRUNE_PAIRS = 12
# Pairs of the question whether what is left holds the gain: more, as it is about all losses together.
HOLD_PAIRS = 24
# What is left may seem to lose so much of the minimum effect.
TOLERATED = 0.5
NOT_HELD = "without it and others the gain was not held"


class Removal(Frozen):
    """Ask whether `parameter` is worth keeping: `control` has it, `variant` has not."""

    parameter: str
    control: dict[str, ParameterValue]
    variant: dict[str, ParameterValue]


def next_removal(
    experiment: Experiment, winner: dict[str, ParameterValue], answers: Sequence[Importance]
) -> Removal | dict[str, ParameterValue]:
    """The next question, or, when every parameter was asked about, what is left of the winner."""
    left = dict(winner)
    asked = set()
    for answer in answers:
        asked.add(answer.parameter)
        if not answer.kept:
            left = without(experiment, left, answer.parameter)
    # The last in the file first: conditions name earlier ones, so dependants are asked about before their switch.
    for name in reversed(list(winner)):
        if name in left and name not in asked:
            smaller = without(experiment, left, name)
            if smaller:
                return Removal(parameter=name, control=left, variant=smaller)
    return left


def answer(experiment: Experiment, removal: Removal, result: TrialResult) -> Importance:
    """What a duet of the winner against the winner without the parameter says."""
    loss = None
    if result.effect is not None:
        # The variant's effect is a reduction: what is left out costs its negative.
        loss = result.effect.model_copy(
            update={
                "estimate": round(-result.effect.estimate, 6),
                "low": round(-result.effect.high, 6),
                "high": round(-result.effect.low, 6),
            }
        )
    same = result.reason == "no-difference"
    # Whatever ended it early, evidence of harm or a guardrail, is a reason to keep the parameter.
    harm = not same and (result.reason != "undecided" or loss is None or loss.low > 0)
    note = "without it the configuration is the same" if same else result.note if harm else ""
    return Importance(
        experiment=experiment.name,
        parameter=removal.parameter,
        value=removal.control[removal.parameter],
        trial=result.trial,
        loss=loss,
        kept=harm,
        note=note,
    )


def holds(result: TrialResult, minimum_effect: float) -> bool:
    """Whether what is left, as the variant against the whole winner, holds the gain.

    By the estimate and not by evidence: what cannot be told apart from no loss may still be one.
    """
    if result.reason == "no-difference":
        return True
    seen = result.effect
    return result.reason == "undecided" and seen is not None and seen.estimate >= -TOLERATED * minimum_effect


def larger(
    experiment: Experiment,
    winner: dict[str, ParameterValue],
    left: dict[str, ParameterValue],
    answers: Sequence[Importance],
) -> dict[str, ParameterValue]:
    """What to try when `left` does not hold the gain: with the half of what was left out that seemed to cost most."""
    losses = {each.parameter: each.loss.estimate for each in answers if each.loss is not None}
    out = sorted((name for name in winner if name not in left), key=lambda name: losses.get(name, 0.0), reverse=True)
    back = {*left, *out[: math.ceil(len(out) / 2)]}
    # Conditions name earlier ranges: what a parameter depends on comes back with it.
    for name in reversed(list(winner)):
        if name in back:
            back |= experiment.ranges[name].when.keys() & winner.keys()
    return {name: value for name, value in winner.items() if name in back}


def concluded(
    answers: Sequence[Importance],
    pruned: dict[str, ParameterValue],
    left: dict[str, ParameterValue],
    *,
    experiment: str,
    trial: int,
) -> list[Importance]:
    """What became of each parameter in the end: `left` of the winner, of which `pruned` was left before any came back.

    Args:
        trial: the winner's, told of parameters that no question was about.
    """
    told = [
        each.model_copy(update={"kept": True, "note": NOT_HELD}) if each.parameter in left and not each.kept else each
        for each in answers
    ]
    asked = {each.parameter for each in answers}
    told += [
        Importance(
            experiment=experiment,
            parameter=name,
            value=value,
            trial=trial,
            kept=True,
            note="all that pruning left of the gain" if name in pruned else NOT_HELD,
        )
        for name, value in left.items()
        if name not in asked
    ]
    return told
