"""The rule on gains alone: search for proof, then confirm it on fresh pairs (why: docs/decision.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controller.judge.evidence import SignProcess, estimate, log_gain
from controller.judge.gain import weighted
from controller.model.metrics import Metric
from controller.model.trial import Action, ReasonCode, Standing, TrialPlan

# What one variant must prove even when it is the only one: at most one false KEEP in a hundred trials.
LEAST_THRESHOLD = 100.0
# Giving up early costs no promise, only a chance: one in twenty at worst.
FUTILE = 20.0
SLOWER = 20.0


@dataclass(frozen=True)
class Rule:
    """What the decision depends on beside the gains.

    Args:
        threshold: the evidence that proves a gain: `max(100, m/alpha)`, m the variants of the run; times the number
            of goals, where each could prove a KEEP.
        least_gain: the minimum effect as a gain, `-ln(1 - effect)`.
    """

    threshold: float
    least_gain: float
    minimum_pairs: int
    maximum_pairs: int
    confirm_pairs: int
    weights: Mapping[Metric, float] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: TrialPlan) -> Rule:
        objective = plan.experiment.objective
        return cls(
            threshold=max(LEAST_THRESHOLD, plan.variants_in_run / plan.alpha) * objective.proofs,
            least_gain=log_gain(objective.minimum_effect),
            minimum_pairs=plan.timing.minimum_pairs,
            maximum_pairs=plan.timing.maximum_pairs,
            confirm_pairs=plan.timing.confirm_pairs,
            weights=objective.weights,
        )

    @property
    def fewest_pairs(self) -> int:
        """The fewest pairs that can prove a gain: each at most doubles the evidence."""
        return max(self.minimum_pairs, math.ceil(math.log2(self.threshold)))

    @property
    def planned_pairs(self) -> int:
        return self.maximum_pairs + self.confirm_pairs

    def fresh_pairs(self, proven_after: int, pairs: int) -> int:
        """How many fresh pairs confirm a gain that took `proven_after` gains to prove, within the schedule's rest.

        A large gain is proven by the fewest pairs, and `confirm_pairs` are plenty. A gain that took longer drowns in
        noise at that number, so every further pair of the search is matched by one of the confirmation: its estimate
        is then as sharp as the one that it checks. The number is fixed before the first fresh pair.
        """
        wanted = self.confirm_pairs + max(0, proven_after - self.fewest_pairs)
        return min(wanted, self.planned_pairs - pairs)


@dataclass(frozen=True)
class Outcome:
    """What the gains so far say."""

    action: Action
    reason: ReasonCode | None
    note: str


class Folding(Protocol):
    """What the judge needs of a decision, whether it folds one number a pair or several goals."""

    rule: Rule
    pairs: int

    @property
    def confirming(self) -> bool: ...
    @property
    def goal(self) -> Metric | None:
        """The goal that the following four are of; None: of all goals as one number."""

    @property
    def better(self) -> SignProcess: ...
    @property
    def slower(self) -> SignProcess: ...
    @property
    def searched(self) -> Sequence[float]: ...
    @property
    def fresh(self) -> Sequence[float]: ...
    def standing(self, metric: Metric) -> Standing: ...
    def fold(self, told: Mapping[Metric, float] | None, *, spoilt: bool = False) -> Outcome:
        """Fold one more pair: the gain of each goal; None where it tells none, which counts towards the limit only.

        spoilt: the probe did not keep its schedule. Such a pair proves no gain, but it may show harm: had its arms
            changed places it would be as spoilt, so between alike arms its sign is a fair coin all the same.
        """


class Decision:
    """Folds one number a pair. Evidence and `searched` stand still once the confirmation has begun."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.pairs = 0
        self.searched: list[float] = []
        self.fresh: list[float] = []
        self.better = SignProcess()
        self.slower = SignProcess()
        self._futile = SignProcess()
        self._fresh_wanted = 0

    @property
    def confirming(self) -> bool:
        return self._fresh_wanted > 0

    @property
    def goal(self) -> Metric | None:
        return None

    def standing(self, _metric: Metric) -> Standing:
        return ""

    def fold(self, told: Mapping[Metric, float] | None, *, spoilt: bool = False) -> Outcome:
        return self.add(None if told is None else weighted(told, self.rule.weights), spoilt=spoilt)

    def add(self, gain: float | None, *, spoilt: bool = False) -> Outcome:
        """Fold one more pair, as `Folding.fold` says."""
        self.pairs += 1
        if gain is not None:
            self.slower.add(-gain)
        if gain is not None and not spoilt:
            if self.confirming:
                self.fresh.append(gain)
            else:
                self.searched.append(gain)
                self.better.add(gain)
                self._futile.add(self.rule.least_gain - gain)
        if reached(self.slower, SLOWER):
            return Outcome("revert", "slower", f"evidence {self.slower.value:.3g} that the variant is worse")
        return self._confirm() if self.confirming else self._search()

    def _search(self) -> Outcome:
        rule = self.rule
        proven = len(self.searched) >= rule.minimum_pairs and reached(self.better, rule.threshold)
        if proven and estimate(self.searched) >= rule.least_gain:
            self._fresh_wanted = rule.fresh_pairs(len(self.searched), self.pairs)
            return Outcome("confirm", None, f"proven; {self._fresh_wanted} fresh pairs to confirm it")
        small = "a gain is proven, but smaller than the minimum effect" if proven else ""
        if reached(self._futile, FUTILE):
            return Outcome("revert", "futile", small or "a gain of the minimum effect is implausible")
        if self.pairs >= rule.maximum_pairs:
            return Outcome("revert", "undecided", small or f"not proven within {rule.maximum_pairs} pairs")
        return Outcome("continue", None, small)

    def _confirm(self) -> Outcome:
        wanted = self._fresh_wanted
        if len(self.fresh) >= wanted:
            if estimate(self.fresh) >= self.rule.least_gain:
                return Outcome("keep", "proven-gain", f"confirmed by {wanted} fresh pairs")
            return Outcome("revert", "not-confirmed", f"{wanted} fresh pairs did not hold the minimum effect")
        if self.pairs >= self.rule.planned_pairs:
            return Outcome("revert", "undecided", f"the schedule ended with {len(self.fresh)} of {wanted} fresh pairs")
        return Outcome("confirm", None, f"fresh pair {len(self.fresh)} of {wanted}")


def reached(process: SignProcess, threshold: float) -> bool:
    return process.log_value >= math.log(threshold)
