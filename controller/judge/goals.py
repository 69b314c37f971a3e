"""Several goals, each judged by itself: lexicographic and pareto (docs/decision.md says how the error is split).

Better is proven by a goal's gains, not worse by the same process on `g + margin`: under a loss of the margin or more
these lean to the negative side. Each of `K` goals could lead to a KEEP, so both ask for `K` times the evidence. A KEEP
is wrong when its goal has no gain, or when a goal that it must not harm loses more than its margin; either way one of
at most `K` statements is false, each with probability at most `alpha / (K * m)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.judge.decision import FUTILE, SLOWER, Outcome, Rule, reached
from controller.judge.evidence import SignProcess, estimate, log_gain
from controller.model.experiment import Goal, GoalsObjective
from controller.model.metrics import Metric
from controller.model.trial import ReasonCode, Standing


class Track:
    """What the gains of one goal say. `margin` and `least` are gains."""

    def __init__(self, goal: Goal) -> None:
        self.metric = goal.metric
        self.least = log_gain(goal.minimum_effect)
        self.margin = -log_gain(-goal.margin)
        self.searched: list[float] = []
        self.fresh: list[float] = []
        self.better = SignProcess()
        self.not_worse = SignProcess()
        self.futile = SignProcess()
        self.worse = SignProcess()
        self.harmed = SignProcess()

    def add(self, gain: float, *, fresh: bool, spoilt: bool) -> None:
        self.worse.add(-gain)
        self.harmed.add(-gain - self.margin)
        if spoilt:
            return
        if fresh:
            self.fresh.append(gain)
            return
        self.searched.append(gain)
        self.better.add(gain)
        self.not_worse.add(gain + self.margin)
        self.futile.add(self.least - gain)


class GoalsDecision:
    """Folds the gains of all goals of one trial (`Folding`).

    Args:
        rule: its threshold counts the goals already.
        patient: whether a pareto trial that can no longer end in a KEEP goes on until it can tell every goal. Only
            where no live traffic pays for it.
    """

    def __init__(self, rule: Rule, objective: GoalsObjective, *, patient: bool) -> None:
        self.rule = rule
        self.pairs = 0
        self._pareto = objective.combine == "pareto"
        self._patient = patient and self._pareto
        self._tracks = [Track(goal) for goal in objective.goals]
        self._decides: Track | None = None
        self._fresh_wanted = 0
        # What gives up early costs a chance: one in twenty over all goals.
        self._enough_to_give_up = len(self._tracks)

    @property
    def confirming(self) -> bool:
        return self._decides is not None

    @property
    def _leading(self) -> Track:
        return self._decides or self._tracks[0]

    @property
    def goal(self) -> Metric | None:
        return self._leading.metric

    @property
    def better(self) -> SignProcess:
        return self._leading.better

    @property
    def slower(self) -> SignProcess:
        return self._leading.worse

    @property
    def searched(self) -> Sequence[float]:
        return self._leading.searched

    @property
    def fresh(self) -> Sequence[float]:
        return self._leading.fresh

    def standing(self, metric: Metric) -> Standing:
        track = next(track for track in self._tracks if track.metric == metric)
        if reached(track.better, self.rule.threshold):
            return "better"
        if reached(track.not_worse, self.rule.threshold):
            return "not-worse"
        return "worse" if reached(track.worse, SLOWER * self._enough_to_give_up) else "undecided"

    def fold(self, told: Mapping[Metric, float] | None, *, spoilt: bool = False) -> Outcome:
        self.pairs += 1
        if told is not None:
            for track in self._tracks:
                track.add(told[track.metric], fresh=self.confirming, spoilt=spoilt)
        return self._search() if self._decides is None else self._confirm(self._decides)

    def _spared(self, track: Track) -> list[Track]:
        """The goals that may not be harmed for the sake of this one."""
        if self._pareto:
            return [other for other in self._tracks if other is not track]
        return self._tracks[: self._tracks.index(track)]

    def _search(self) -> Outcome:
        rule = self.rule
        for track in self._tracks:
            spares = all(reached(other.not_worse, rule.threshold) for other in self._spared(track))
            if spares and self._proven(track):
                self._decides = track
                self._fresh_wanted = rule.fresh_pairs(len(track.searched), self.pairs)
                note = f"{track.metric} is proven better; {self._fresh_wanted} fresh pairs to confirm it"
                return Outcome("confirm", None, note)
        harmed = [track for track in self._tracks if self._harmed(track)]
        traded = self._pareto and bool(harmed) and any(map(self._proven, self._tracks))
        hopeless = all(self._hopeless(track) for track in self._tracks)
        if hopeless and (not self._patient or all(map(self._settled, self._tracks))):
            return self._give_up(harmed, "trade-off" if traded else "slower" if harmed else "futile")
        if self.pairs >= rule.maximum_pairs:
            return self._give_up(harmed, "trade-off" if traded else "undecided")
        return Outcome("continue", None, "")

    def _proven(self, track: Track) -> bool:
        enough = len(track.searched) >= self.rule.minimum_pairs and reached(track.better, self.rule.threshold)
        return enough and estimate(track.searched) >= track.least

    def _harmed(self, track: Track) -> bool:
        return reached(track.harmed, SLOWER * self._enough_to_give_up)

    def _futile(self, track: Track) -> bool:
        return reached(track.futile, FUTILE * self._enough_to_give_up)

    def _hopeless(self, track: Track) -> bool:
        return self._futile(track) or any(map(self._harmed, [track, *self._spared(track)]))

    def _settled(self, track: Track) -> bool:
        return (
            self._harmed(track)
            or self._proven(track)
            or (self._futile(track) and self.standing(track.metric) != "undecided")
        )

    def _give_up(self, harmed: Sequence[Track], reason: ReasonCode) -> Outcome:
        losses = ", ".join(track.metric for track in harmed)
        notes: dict[str, str] = {
            "trade-off": f"better in a goal, but worse in {losses}",
            "slower": f"worse in {losses}, by more than the margin",
            "futile": "a gain of the minimum effect is implausible in every goal that could decide",
        }
        return Outcome("revert", reason, notes.get(reason, f"not proven within {self.rule.maximum_pairs} pairs"))

    def _confirm(self, decides: Track) -> Outcome:
        wanted = self._fresh_wanted
        harmed = [track for track in [decides, *self._spared(decides)] if self._harmed(track)]
        if harmed:
            return self._give_up(harmed, "slower")
        if len(decides.fresh) >= wanted:
            lost = [track.metric for track in self._spared(decides) if estimate(track.fresh) < -track.margin]
            if estimate(decides.fresh) < decides.least:
                lost.append(decides.metric)
            if lost:
                return Outcome("revert", "not-confirmed", f"{wanted} fresh pairs did not hold {', '.join(lost)}")
            return Outcome("keep", "proven-gain", f"{decides.metric}, confirmed by {wanted} fresh pairs")
        if self.pairs >= self.rule.planned_pairs:
            note = f"the schedule ended with {len(decides.fresh)} of {wanted} fresh pairs"
            return Outcome("revert", "undecided", note)
        return Outcome("confirm", None, f"fresh pair {len(decides.fresh)} of {wanted}")
