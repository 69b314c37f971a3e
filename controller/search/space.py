"""The ranges of an experiment as a space of proposals: what may be set under which conditions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controller.model.experiment import Experiment, ParameterValue, Range

Parameters = dict[str, ParameterValue]


def applies(each: Range, requires: Mapping[str, ParameterValue], chosen: Mapping[str, ParameterValue]) -> bool:
    """Whether a range is varied at all, given the values that were chosen before it."""
    known = {**requires, **chosen}
    return all(name in known and known[name] == value for name, value in each.when.items())


def without(experiment: Experiment, parameters: Parameters, name: str) -> Parameters:
    """The parameters with one taken back to what the baseline has, and with it those that depend on it."""
    left = {key: value for key, value in parameters.items() if key != name}
    for key, each in experiment.ranges.items():
        if key in left and not applies(each, experiment.requires, left):
            left = without(experiment, left, key)
    return left


def mixed(experiment: Experiment, most: Parameters, few: Parameters, names: Collection[str]) -> Parameters | None:
    """`most` with these parameters of `few`, and those that apply only then; None where neither has one of them."""
    made: Parameters = {}
    for name, each in experiment.ranges.items():
        if applies(each, experiment.requires, made):
            source = few if name in few and (name in names or name not in most) else most
            if name not in source:
                return None
            made[name] = source[name]
    return made
