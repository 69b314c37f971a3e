"""The judge: folds each pair of a trial into guardrails and evidence, and says what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

from controller.judge.decision import Decision, Folding, Outcome, Rule
from controller.judge.evidence import effect
from controller.judge.gain import gains
from controller.judge.goals import GoalsDecision
from controller.judge.guardrails import Breach, GuardrailWatch
from controller.judge.schedule import draw_groups
from controller.judge.traffic import TrafficWatch
from controller.model.blocks import Arm
from controller.model.designs import DESIGNS
from controller.model.experiment import GoalsObjective
from controller.model.metrics import Metric
from controller.model.trial import UNDECIDED, GoalEffect, Judgement, Pair, TrialPlan


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
        return self._outcome.action not in UNDECIDED

    def add(self, pair: Pair) -> Judgement:
        """Fold one more pair. Raises ValueError when the verdict is there already."""
        self.fold(pair)
        return self.judgement()

    def judge_all(self, pairs: Iterable[Pair]) -> Judgement:
        """The last judgement over all pairs. Raises ValueError when pairs follow the verdict."""
        for pair in pairs:
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
        return self._weigh_next(pair)

    def _weigh_next(self, pair: Pair) -> Outcome:
        breach = self._watch.add(pair) or (self._traffic.add(pair) if self._traffic else None)
        told = None if breach else gains(pair, self._metrics, self._plan.design)
        # A spoilt pair may leave a metric out; live traffic is spoilt by what the users did, and then tells nothing.
        complete = told is not None and len(told) == len(self._metrics)
        # Where nginx ran something else, it tells nothing of the variant, neither gain nor harm.
        if pair.astray or (not pair.valid and not (complete and self._plan.experiment.source == "probe")):
            told = None
        return self._take(told, breach, f"{pair.host}, pair {pair.number}", spoilt=not pair.valid)

    def _take(
        self, told: dict[Metric, float] | None, breach: Breach | None, where: str, *, spoilt: bool = False
    ) -> Outcome:
        """Fold the gains of one pair or period; None when it tells none. `spoilt`: they may only show harm."""
        before = self._decision.confirming
        for metric in self._metrics if told is not None and not (breach or spoilt) else []:
            if told is not None and metric in told:
                (self._fresh if before else self._searched)[metric].append(told[metric])
            else:
                breach = Breach("guardrail-missing-data", f"{where}: no {metric} in both arms")
        outcome = self._decision.fold(None if breach else told, spoilt=spoilt)
        if not breach and (outcome.action in {"keep", "no-harm"} or (outcome.action == "confirm" and not before)):
            breach = self._watch.before_keep(self._watched_fresh())
        return Outcome("revert", breach.reason, breach.note) if breach else outcome

    def _watched_fresh(self) -> int:
        """How many of the pairs that the guardrails saw last are fresh ones."""
        return len(self._decision.fresh)

    def _out_of_place(self, pair: Pair) -> str:
        """Why this cannot be the next pair of its host; empty when it is."""
        expected = self._next_number.get(pair.host)
        if expected is None:
            return "the host is not in the plan"
        self._next_number[pair.host] = expected + 1
        if pair.number != expected:
            return f"pair {expected} was due"
        control, variant = pair.control, pair.variant
        if (control.arm, variant.arm) != self._arms(pair):
            return "its blocks are not of the arms that are due"
        if control.pair != pair.number or variant.pair != pair.number:
            return "its blocks are of another pair"
        if {control.block, variant.block} != {2 * expected - 1, 2 * expected}:
            return "its blocks are out of order"
        return ""

    def _arms(self, _pair: Pair) -> tuple[Arm, Arm]:
        """Of the pair's two blocks."""
        return "control", "variant"


class FleetJudge(Judge):
    """Judges the fleet design, whose pairs are hosts in a period: the period counts when the last of them is told.

    A period's gain is the mean over the hosts with the variant of `ln(before / after)`, less the mean over the others.
    What was before the coin fell cannot depend on it; so if the arms are alike, the other side of the coin would have
    turned the gain into its opposite and changed nothing else. A host that was spoilt counts on neither side.
    """

    def __init__(self, plan: TrialPlan) -> None:
        super().__init__(plan)
        self._groups = draw_groups(plan.seed, plan.number, plan.hosts, plan.timing.planned_pairs)
        self._told: dict[int, dict[str, Pair]] = {}
        self._fed_fresh = 0

    def _arms(self, pair: Pair) -> tuple[Arm, Arm]:
        return "control", "variant" if pair.host in self._group(pair.number) else "control"

    def _group(self, number: int) -> frozenset[str]:
        """The hosts with the variant in this period; none beyond the plan."""
        return self._groups[number - 1] if number <= len(self._groups) else frozenset()

    def _weigh_next(self, pair: Pair) -> Outcome:
        if pair.control.block > pair.variant.block:
            self._decision.pairs += 1
            return Outcome("revert", "measurement-invalid", f"{pair.host}, period {pair.number}: after stands before")
        period = self._told.setdefault(pair.number, {})
        period[pair.host] = pair
        if len(period) < len(self._plan.hosts):
            return self._outcome
        del self._told[pair.number]
        breach = self._check(period, self._group(pair.number))
        return self._take(None if breach else self._gains(period), breach, f"period {pair.number}")

    def _check(self, period: Mapping[str, Pair], group: frozenset[str]) -> Breach | None:
        """Hold each host that got the variant against itself before."""
        for host in self._plan.hosts:
            if host in group:
                if self._decision.confirming and period[host].valid:
                    self._fed_fresh += 1
                breach = self._watch.add(period[host])
                if breach:
                    return breach
        return None

    def _gains(self, period: Mapping[str, Pair]) -> dict[Metric, float] | None:
        told: dict[Arm, list[dict[Metric, float]]] = {"control": [], "variant": []}
        for host in self._plan.hosts:
            if period[host].valid:
                told[period[host].variant.arm].append(gains(period[host], self._metrics, self._plan.design))
        if not all(told.values()):
            return None
        return {
            metric: fmean(each[metric] for each in told["variant"]) - fmean(each[metric] for each in told["control"])
            for metric in self._metrics
            if all(metric in each for arm in told.values() for each in arm)
        }

    def _watched_fresh(self) -> int:
        return self._fed_fresh


def judge_of(plan: TrialPlan) -> Judge:
    """The judge of a trial that is measured in one go."""
    return FleetJudge(plan) if DESIGNS[plan.design].between_hosts else Judge(plan)


def decision_of(plan: TrialPlan) -> Folding:
    """What folds the gains of a trial: as one number, or goal by goal."""
    objective = plan.experiment.objective
    if isinstance(objective, GoalsObjective):
        return GoalsDecision(Rule.of(plan), objective, patient=DESIGNS[plan.design].at_once)
    return Decision(Rule.of(plan))


def judge_trial(plan: TrialPlan, pairs: Iterable[Pair]) -> Judgement:
    """The last judgement over all pairs, the same as folding them one by one.

    Raises ValueError when pairs follow the verdict.
    """
    return judge_of(plan).judge_all(pairs)


def _six_digits(number: float) -> float:
    return float(f"{number:.6g}")
