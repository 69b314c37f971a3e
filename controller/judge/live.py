"""The live check: a proven variant on the live instance for a few pairs; it asks for no harm, not for proof of gain."""

from __future__ import annotations

from collections.abc import Iterable

from controller.judge.decision import SLOWER, Decision, Outcome, Rule
from controller.judge.evidence import estimate, reduction
from controller.judge.verdict import Judge
from controller.model.trial import Judgement, Pair, TrialPlan

# A pair of live blocks is noisy (6 to 17 % by itself): a handful cannot tell a small loss from none. A loss of more
# than this they can tell, and the guardrails do not.
MARGIN = 0.10


class LiveDecision(Decision):
    """Ends after the fewest valid pairs: no harm unless the typical gain is a loss beyond the margin.

    Such a loss may still be the noise of so few pairs: then all pairs that may be tried are, and all of them decide.
    """

    # Hosts whose live instance no valid pair has shown yet: nobody knows of them that it does no harm.
    unseen: frozenset[str] = frozenset()
    _looked_worse = False

    def add(self, gain: float | None, *, spoilt: bool = False) -> Outcome:
        self.pairs += 1
        if gain is not None:
            self.slower.add(-gain)
        if gain is not None and not spoilt:
            self.searched.append(gain)
            self.better.add(gain)
        if self.slower.value >= SLOWER:
            return Outcome("revert", "worse-live", f"evidence {self.slower.value:.3g} that the live instance is slower")
        if len(self.searched) < self.rule.minimum_pairs or self.unseen:
            if self.pairs < self.rule.maximum_pairs:
                return Outcome("continue", None, "")
            note = f"only {len(self.searched)} of {self.pairs} pairs on the live instance were valid"
            if self.unseen:
                note += f", none of {', '.join(sorted(self.unseen))}"
            return Outcome("revert", "guardrail-missing-data", note)
        typical = reduction(estimate(self.searched))
        worse = typical < -MARGIN
        self._looked_worse = self._looked_worse or worse
        if self._looked_worse and self.pairs < self.rule.maximum_pairs:
            return Outcome("continue", None, f"{-typical:.1%} slower so far" if worse else "")
        if worse:
            note = f"{-typical:.1%} slower in {len(self.searched)} pairs (at most {MARGIN:.0%} may be noise)"
            return Outcome("revert", "worse-live", note)
        return Outcome("no-harm", None, f"no harm in {len(self.searched)} live pairs")


class LiveJudge(Judge):
    """Judges the pairs of a live check, guardrails included."""

    def __init__(self, plan: TrialPlan) -> None:
        super().__init__(plan)
        self._live = self._decision = LiveDecision(Rule.of(plan))
        self._live.unseen = frozenset(plan.hosts)

    def _weigh_next(self, pair: Pair) -> Outcome:
        if pair.valid:
            self._live.unseen -= {pair.host}
        return super()._weigh_next(pair)


def judge_live(plan: TrialPlan, pairs: Iterable[Pair]) -> Judgement:
    """The last judgement of a live check. Raises ValueError when pairs follow the verdict."""
    return LiveJudge(plan).judge_all(pairs)
