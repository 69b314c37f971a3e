"""What happens in a run, as it happens: the terminal, `log.jsonl` and the tests read the same stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from controller.model.experiment import Frozen
from controller.model.trial import Judgement, TrialPlan, TrialResult


class StepStarted(Frozen):
    """A named step of the run began."""

    event: Literal["step"] = "step"
    text: str


class Notice(Frozen):
    """Something the operator should know; the run goes on."""

    event: Literal["notice"] = "notice"
    level: Literal["info", "warning"] = "info"
    text: str
    host: str = ""


class TrialStarted(Frozen):
    """Probing of one variant begins."""

    event: Literal["trial-started"] = "trial-started"
    plan: TrialPlan
    trials_in_run: int


# What a pair is judged for: the verdict, no harm on the live instance, or health in the soak (there a pair is a block).
PhaseName = Literal["trial", "live check", "soak", "stint", "calibration"]


class PairJudged(Frozen):
    """One more pair, and what the judge says now."""

    event: Literal["pair"] = "pair"
    trial: int
    phase: PhaseName = "trial"
    host: str
    number: int
    judgement: Judgement
    seconds: float
    seconds_left_at_most: float


class TrialEnded(Frozen):
    """The verdict of one trial; it is committed or rolled back next."""

    event: Literal["trial-ended"] = "trial-ended"
    result: TrialResult


class TrialSettled(Frozen):
    """The verdict has been carried out and verified on every host."""

    event: Literal["trial-settled"] = "trial-settled"
    trial: int
    text: str


Event = StepStarted | Notice | TrialStarted | PairJudged | TrialEnded | TrialSettled
Observer = Callable[[Event], None]
