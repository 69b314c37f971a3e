"""A trial: the pairs of one variant on one or more hosts, up to its verdict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.model.blocks import Block
from controller.model.calibration import Calibration
from controller.model.designs import DESIGNS
from controller.model.experiment import Design, Experiment, Frozen, Source, Timing, Variant
from controller.model.metrics import Metric

# What one stretch of probing does: a trial in its design, or a soak of the variant alone.
ProbeDesign = Literal["duet", "switchback", "fleet", "soak"]
VerdictName = Literal["KEEP", "REVERT"]
ReasonCode = Literal[
    "proven-gain",  # KEEP: enough evidence, confirmed on fresh pairs
    "futile",  # a gain of the minimum effect is implausible
    "undecided",  # the pair limit was reached
    "slower",  # ABORT: evidence of harm
    "trade-off",  # better in one goal, worse in another: the operator's to choose
    "not-confirmed",  # the fresh pairs did not hold the gain
    "outdone",  # in a search: another variant did better, or a smaller diff holds the gain
    "worse-live",  # proven on shadow instances, but the live instance got slower
    "no-difference",  # the variant renders to the baseline's configuration
    "sockets-differ",  # its design switches live users, and a host would open or close sockets at each switch
    "guardrail-errors",
    "guardrail-p99",
    "guardrail-memory",
    "guardrail-open-files",
    "guardrail-cpu",
    "guardrail-body",
    "guardrail-missing-data",
    "guardrail-sample-ratio",  # live traffic: one arm got more requests than chance explains
    "soak-errors",  # in the soak: requests failed
    "soak-memory",  # in the soak: memory beyond its limit, or climbing towards it
    "soak-open-files",
    "soak-error-log",  # in the soak: nginx logged errors that it does not log under the baseline
    "soak-pressure",  # in the soak: the host stalled on memory or disks, or TCP retransmitted
    "measurement-invalid",  # the CSV is damaged, or does not give the verdict that was reached live
    "rejected-by-nginx",  # nginx -t or the reload refused the configuration
    "host-failed",
    "commit-failed",  # proven, but it could not be committed everywhere
    "interrupted",
]


class Effect(Frozen):
    """A reduction of the objective's metric as a fraction: 0.25 is 25 % better. The interval covers 95 %."""

    estimate: float
    low: float
    high: float


# not-worse: a loss beyond the goal's margin is ruled out. Empty: the goal is weighed, not judged by itself.
Standing = Literal["", "better", "not-worse", "worse", "undecided"]


class GoalEffect(Frozen):
    """What a variant does to one goal of an objective that has several."""

    metric: Metric
    standing: Standing = ""
    effect: Effect | None = None
    confirmed_effect: Effect | None = None


class Pair(Frozen):
    """A control block and a variant block: in a switchback their order was drawn at random, in a duet they ran at
    once and which shadow instance played which arm was drawn.

    In the fleet design a host's period: `control` is its block before, `variant` its block after, which is of either
    arm, as was drawn for the host.
    """

    host: str
    number: int = Field(ge=1)
    control: Block
    variant: Block

    @property
    def valid(self) -> bool:
        """Whether neither block is spoilt."""
        return self.control.valid and self.variant.valid

    @property
    def astray(self) -> bool:
        """Whether nginx is known to have run another configuration in either block."""
        return self.control.astray or self.variant.astray


class TrialTiming(Frozen):
    """An experiment's timing with every default filled in, or calibrated."""

    block_seconds: float
    burn_in_seconds: float
    minimum_pairs: int
    maximum_pairs: int
    confirm_pairs: int

    @classmethod
    def of(cls, timing: Timing, design: Design, source: Source = "probe") -> TrialTiming:
        """Shadow instances settle sooner than the live one, and need shorter blocks; users come when they like."""
        block, burn_in = DESIGNS[design].seconds
        if source == "live":
            block, burn_in = 10.0, 1.0
        return cls(
            block_seconds=block if timing.block_seconds is None else timing.block_seconds,
            burn_in_seconds=burn_in if timing.burn_in_seconds is None else timing.burn_in_seconds,
            minimum_pairs=timing.minimum_pairs,
            maximum_pairs=timing.maximum_pairs,
            confirm_pairs=timing.confirm_pairs,
        )

    @property
    def planned_pairs(self) -> int:
        """Pairs whose order is drawn: the limit, and the fresh ones that confirm."""
        return self.maximum_pairs + self.confirm_pairs


class TrialPlan(Frozen):
    """What is fixed before the first measurement."""

    number: int = Field(ge=1)
    experiment: Experiment
    variant: Variant
    design: ProbeDesign
    timing: TrialTiming
    hosts: list[str]
    seed: int
    alpha: float
    variants_in_run: int
    soak_seconds: float = Field(default=0.0, description="how long a proven variant is watched before its commit")
    control_ids: dict[str, str] = Field(default={}, description="host -> configuration id")
    variant_ids: dict[str, str] = Field(default={}, description="host -> configuration id")
    sockets_differ: bool = Field(
        default=False, description="an arm listens on other sockets than the baseline: it never goes live in the trial"
    )
    calibration: Calibration | None = Field(
        default=None, description="where the rate and the timing come from that the experiment left open"
    )


# Of pairs: keep or revert, once there are enough, and fresh ones confirm it. The live check and the soak cannot find a
# gain: what passes them does no harm, or is healthy.
Action = Literal["continue", "confirm", "keep", "revert", "no-harm", "healthy"]
UNDECIDED: frozenset[Action] = frozenset({"continue", "confirm"})


class Judgement(Frozen):
    """What the judge says after each pair."""

    action: Action
    reason: ReasonCode | None = None
    note: str = ""
    evidence: float
    evidence_slower: float
    threshold: float
    pairs: int
    effect: Effect | None = None
    confirmed_effect: Effect | None = None
    goals: list[GoalEffect] = []
    goal: str = Field(default="", description="the goal that evidence and effects are of; empty: there is one number")

    @property
    def decided(self) -> bool:
        return self.action not in UNDECIDED


class LiveCheck(Frozen):
    """What a short switchback of the live instance said about a variant that a duet had proven.

    It cannot prove a small gain; it shows that the variant does no harm there.
    """

    passed: bool
    reason: ReasonCode | None = None
    note: str = ""
    effect: Effect | None = None
    objective: str = Field(default="", description="what the effect is of; empty: what the trial's is of")
    pairs: int
    sequence: list[str] = []
    failed_hosts: list[str] = []


class SoakCheck(Frozen):
    """What some seconds of the variant alone, live and under load, said about its health (controller/judge/soak.py)."""

    passed: bool
    reason: ReasonCode | None = None
    note: str = ""
    seconds: float
    sequence: list[str] = Field(default=[], description="host of each judged block, in the order of judging")
    failed_hosts: list[str] = []


class Stint(Frozen):
    """A few pairs of one variant in a search; the pairs of all its stints fold into one judgement, in this order.

    Each has its own CSV: on the host trial `number` of `<run>.stints`, here `trials/<trial>/stints/<number>/`.
    """

    number: int = Field(ge=1, description="of the run, from 1")
    alone: bool = Field(description="the variant competes no more: from here on a gain may be proven and confirmed")
    pairs_per_host: int = Field(ge=1, description="pairs planned on each host")
    hosts: list[str] = Field(default=[], description="that took part; a search goes on without hosts that break")
    sequence: list[str] = Field(default=[], description="host of each judged pair, in the order of judging")


class TrialResult(Frozen):
    """The verdict with its evidence; one element of `trials` in verdict.json."""

    trial: int
    experiment: str
    variant: str
    hosts: list[str]
    verdict: VerdictName
    reason: ReasonCode
    note: str = ""
    objective: str
    design: ProbeDesign
    effect: Effect | None
    confirmed_effect: Effect | None
    goals: list[GoalEffect] = Field(default=[], description="of an objective that has several, one a goal")
    sockets_differ: bool = Field(
        default=False, description="an arm listens on other sockets than the baseline: neither live check nor soak"
    )
    live: LiveCheck | None = Field(
        default=None, description="None: not proven, measured on the live instance, or its sockets differ"
    )
    soak: SoakCheck | None = Field(
        default=None, description="None: not proven, no soak was asked for, or its sockets differ"
    )
    evidence: float
    threshold: float
    pairs: int
    requests: int
    errors: int
    seconds: float
    probing_seconds: float
    sequence: list[str] = Field(default=[], description="host of each judged pair, in the order of judging")
    parameters: dict[str, object] = {}
    stints: list[Stint] = Field(default=[], description="of a search; empty when all pairs were measured in one go")
    against: str = Field(default="", description="the variant that was the control; empty: the baseline")
    failed_hosts: list[str] = Field(default=[], description="of `host-failed` and `commit-failed`: those at fault")
