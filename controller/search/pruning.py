"""Pruning: which parameters of a winner are worth their line in the configuration?

Leave one out: the winner is the control, the same without one parameter the variant. When no harm shows the parameter
goes, and the next is asked of what is left. The smaller diff is then proven against the baseline like any variant, so
that many losses too small to see cannot add up to one that is not told.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.model.experiment import Experiment, Frozen, ParameterValue
from controller.model.run import Importance
from controller.model.trial import TrialResult
from controller.search.space import without

# Pairs of one question, over all hosts: ten small losses in a row are evidence of 2**10.
PRUNE_PAIRS = 12


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
