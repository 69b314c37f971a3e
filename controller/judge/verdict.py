"""The judge: folds each pair of a trial into guardrails and evidence, and says what to do next."""

from __future__ import annotations

from collections.abc import Iterable

from controller.judge.decision import Decision, Folding, Outcome, Rule
from controller.judge.evidence import effect
from controller.judge.gain import gains
from controller.judge.goals import GoalsDecision
from controller.judge.guardrails import Breach, GuardrailWatch
from controller.judge.traffic import TrafficWatch
from controller.model.experiment import GoalsObjective, Metric
from controller.model.trial import GoalEffect, Judgement, Pair, TrialPlan


class Judge:
    """Judges one trial live, pair by pair, in the order of arrival; several hosts fold into one decision.

    The same pairs in the same order give the same judgements, to the last digit (`judge_trial`).
    """

    def __init__(self, plan: TrialPlan) -> None:
        self._plan = plan
        self._decision: Folding = decision_of(plan)
        self._watch = GuardrailWatch(plan.experiment.guardrails)
        self._traffic = TrafficWatch() if plan.experiment.source == "live" else None
        self._next_number = dict.fromkeys(plan.hosts, 1)
        self._outcome = Outcome("continue", None, "")
        self._metrics = list(plan.experiment.objective.weights)
        # Of each goal, where there are several: the gains that went into the search, and the fresh ones.
        self._searched: dict[Metric, list[float]] = {metric: [] for metric in self._metrics}
        self._fresh: dict[Metric, list[float]] = {metric: [] for metric in self._metrics}

    @property
    def decided(self) -> bool:
        return self._outcome.action in {"keep", "revert"}

    def add(self, pair: Pair) -> Judgement:
        """Fold one more pair. Raises ValueError when the verdict is there already."""
        self.fold(pair)
        return self.judgement()

    def fold(self, pair: Pair) -> None:
        """`add` without the judgement, whose estimates take longer than the rest."""
        if self.decided:
            raise ValueError(f"{pair.host}, pair {pair.number}: a pair after the verdict")
        self._outcome = self._weigh(pair)

    def judgement(self) -> Judgement:
        """What the judge says now. Evidence is told to six digits: more would differ between mathematical libraries."""
        decision, outcome = self._decision, self._outcome
        return Judgement(
            action=outcome.action,
            reason=outcome.reason,
            note=outcome.note,
            evidence=_six_digits(decision.better.value),
            evidence_slower=_six_digits(decision.slower.value),
            threshold=decision.rule.threshold,
            pairs=decision.pairs,
            effect=effect(decision.searched),
            confirmed_effect=effect(decision.fresh),
            goals=self._goal_effects() if len(self._metrics) > 1 else [],
            goal=decision.goal or "",
        )

    def _goal_effects(self) -> list[GoalEffect]:
        return [
            GoalEffect(
                metric=metric,
                standing=self._decision.standing(metric),
                effect=effect(self._searched[metric]),
                confirmed_effect=effect(self._fresh[metric]),
            )
            for metric in self._metrics
        ]

    def _weigh(self, pair: Pair) -> Outcome:
        wrong = self._out_of_place(pair)
        if wrong:
            self._decision.pairs += 1
            return Outcome("revert", "measurement-invalid", f"{pair.host}, pair {pair.number}: {wrong}")
        breach = self._watch.add(pair) or (self._traffic.add(pair) if self._traffic else None)
        before = self._decision.confirming
        told = None
        if not breach and pair.control.valid and pair.variant.valid:
            told = gains(pair, self._metrics, self._plan.design)
            for metric in self._metrics:
                if metric in told:
                    (self._fresh if before else self._searched)[metric].append(told[metric])
                else:
                    where = f"{pair.host}, pair {pair.number}"
                    breach = Breach("guardrail-missing-data", f"{where}: no {metric} in both arms")
        outcome = self._decision.fold(None if breach else told)
        if not breach and (outcome.action == "keep" or (outcome.action == "confirm" and not before)):
            breach = self._watch.before_keep(len(self._decision.fresh))
        return Outcome("revert", breach.reason, breach.note) if breach else outcome

    def _out_of_place(self, pair: Pair) -> str:
        """Why this cannot be the next pair of its host; empty when it is."""
        expected = self._next_number.get(pair.host)
        if expected is None:
            return "the host is not in the plan"
        self._next_number[pair.host] = expected + 1
        if pair.number != expected:
            return f"pair {expected} was due"
        control, variant = pair.control, pair.variant
        if (control.arm, variant.arm) != ("control", "variant"):
            return "it is not one control and one variant block"
        if control.pair != pair.number or variant.pair != pair.number:
            return "its blocks are of another pair"
        if {control.block, variant.block} != {2 * expected - 1, 2 * expected}:
            return "its blocks are out of order"
        return ""


def decision_of(plan: TrialPlan) -> Folding:
    """What folds the gains of a trial: as one number, or goal by goal."""
    objective = plan.experiment.objective
    if isinstance(objective, GoalsObjective):
        return GoalsDecision(Rule.of(plan), objective, patient=plan.design == "duet")
    return Decision(Rule.of(plan))


def judge_trial(plan: TrialPlan, pairs: Iterable[Pair]) -> Judgement:
    """The last judgement over all pairs, the same as folding them one by one.

    Raises ValueError when pairs follow the verdict.
    """
    judge = Judge(plan)
    for pair in pairs:
        judge.fold(pair)
    return judge.judgement()


def _six_digits(number: float) -> float:
    return float(f"{number:.6g}")
