"""The judge of a search: a variant is measured in stints, all of which fold into one judgement.

While a variant competes nothing is proven: its evidence gathers, and harm or futility end it. When it is alone in the
field its evidence may suffice, and is confirmed on fresh pairs like that of any trial. Which variant is measured next
depends on what was seen before, never on the coins to come, so the evidence of each is still a test martingale under
its own null, and `m/alpha` still bounds the chance that any of `m` variants is falsely proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from controller.judge.decision import FUTILE, Decision, Outcome, Rule, reached
from controller.judge.verdict import Judge
from controller.model.experiment import GoalsObjective
from controller.model.trial import Judgement, Pair, TrialPlan


class CompetingDecision(Decision):
    """A decision that proves nothing until the variant is alone."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.alone = False

    def begin(self, *, alone: bool) -> None:
        """What the variant took while it competed is not taken from the pairs of its proof."""
        if alone and not self.alone:
            self.rule = replace(self.rule, maximum_pairs=self.rule.maximum_pairs + self.pairs)
        self.alone = alone

    def _search(self) -> Outcome:
        if self.alone:
            return super()._search()
        if reached(self._futile, FUTILE):
            return Outcome("revert", "futile", "a gain of the minimum effect is implausible")
        return Outcome("continue", None, "")


class StintJudge(Judge):
    """Judges the stints of one variant; `begin` each before its first pair."""

    def __init__(self, plan: TrialPlan) -> None:
        super().__init__(plan)
        if isinstance(plan.experiment.objective, GoalsObjective):
            raise ValueError("a search ranks variants by one number, which goals judged each by itself do not give")
        self._competing = CompetingDecision(Rule.of(plan))
        self._decision = self._competing

    def begin(self, *, alone: bool) -> None:
        """The pairs of each host are counted from 1 again."""
        self._competing.begin(alone=alone)
        self._next_number = dict.fromkeys(self._plan.hosts, 1)


def judge_stints(plan: TrialPlan, stints: Iterable[tuple[bool, Sequence[Pair]]]) -> Judgement:
    """The last judgement over (alone, pairs) of each stint. Raises ValueError when pairs follow the verdict."""
    judge = StintJudge(plan)
    for alone, pairs in stints:
        judge.begin(alone=alone)
        for pair in pairs:
            judge.fold(pair)
    return judge.judgement()
