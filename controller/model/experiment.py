"""An experiment: a question, its variants, its workload, its objective and guardrails.

The same classes are the published JSON schema of `experiments/<name>/meta.json` (`controller experiments schema`).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag

from controller.model.metrics import Metric, Mode

Scalar = bool | int | float | str
ParameterValue = Scalar | list[str]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
ParameterName = Annotated[str, Field(pattern=r"^nginx_[a-z0-9_]{1,60}$")]
# Words for people: on a terminal they must not steer it, nor be read in another order than they are written.
_PLAIN = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
Words = Annotated[str, Field(pattern=_PLAIN)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderText = Annotated[str, Field(pattern=r"^[\t\x20-\x7e]*$", max_length=4000)]
# How the arms of a trial are compared: two shadow instances at once, reloads of the live one, or hosts with hosts.
Design = Literal["duet", "switchback", "fleet"]
# Whose requests are measured: the probe's own, or those of real users, read from nginx's log.
Source = Literal["probe", "live"]


# What these change is which sockets nginx listens on, or how many: each switch would reset users' connections.
CHANGES_SOCKETS = frozenset({"nginx_reuseport", "nginx_listen_backlog", "nginx_ipv6", "nginx_demo_sites"})


class Frozen(BaseModel):
    """Immutable, and unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(Frozen):
    """One kind of request of a workload's mix."""

    path: str = Field(pattern=r"^/[\x21-\x7e]*$", max_length=2000)
    weight: int = Field(default=1, ge=1, le=1000)
    method: Literal["GET", "HEAD", "POST"] = "GET"
    headers: dict[HeaderName, HeaderText] = Field(default={}, max_length=50)
    body: str = Field(default="", max_length=65536)
    expect_status: int = Field(default=200, ge=100, le=599)


class Workload(Frozen):
    """What the probe asks for: an open loop at a constant rate, the same in both arms, or as much as nginx can answer.

    At saturation a fixed number of connections each send their next request as soon as they are answered. The live
    instance is never saturated unless the experiment's design is switchback: `auto` is a duet then, and the live check
    asks at `rate`. With live traffic the probe asks only for one of each request a block, to compare bodies: the rate
    means nothing.
    """

    rate: float | None = Field(
        default=None,
        gt=0,
        le=3000,
        description="requests per second, evenly spaced; default: calibrated, the highest that leaves the host idle "
        "enough",
    )
    requests: list[Request] = Field(min_length=1, max_length=50)
    scheme: Literal["http", "https"] = "http"
    port: int = Field(default=0, ge=0, le=65535, description="0: 80 for http, 443 for https")
    host: str = Field(default="localhost", pattern=r"^[A-Za-z0-9.-]{1,253}$", description="Host header and TLS name")
    connections: Literal["keepalive", "fresh"] = "keepalive"
    timeout_ms: int = Field(default=2000, ge=10, le=60000)
    mode: Mode = "steady"
    connections_open: int = Field(default=8, ge=1, le=256, description="at saturation: requests under way at any time")


MinimumEffect = Annotated[float, Field(ge=0.0, le=0.9, description="smallest reduction worth keeping, a fraction")]


class Objective(Frozen):
    """What counts as better: less of this metric; more, for throughput: less time a request at saturation."""

    metric: Metric = "p50"
    minimum_effect: MinimumEffect = 0.03

    @property
    def name(self) -> str:
        """What effects are told of."""
        return self.metric

    @property
    def weights(self) -> dict[Metric, float]:
        return {self.metric: 1.0}

    @property
    def proofs(self) -> int:
        """How many proofs could each lead to a KEEP; the threshold grows by as much."""
        return 1


class WeightedGoal(Frozen):
    """One of several metrics that are weighed against each other."""

    metric: Metric
    weight: float = Field(default=1.0, gt=0, le=1000)


class Goal(Frozen):
    """One of several metrics that are not weighed against each other."""

    metric: Metric
    minimum_effect: MinimumEffect = 0.03
    margin: float = Field(
        default=0.03, gt=0.0, le=0.9, description="a loss up to this fraction still counts as not worse"
    )


SomeGoal = TypeVar("SomeGoal", WeightedGoal, Goal)


def _each_metric_once(goals: list[SomeGoal]) -> list[SomeGoal]:
    metrics = [goal.metric for goal in goals]
    for metric in metrics:
        if metrics.count(metric) > 1:
            raise ValueError(f"each metric once, {metric} is named {metrics.count(metric)} times")
    return goals


class WeightedObjective(Frozen):
    """Several metrics as one number: the weighted mean of their gains, `ln(control / variant)` each."""

    combine: Literal["weighted"]
    goals: Annotated[list[WeightedGoal], AfterValidator(_each_metric_once)] = Field(min_length=2, max_length=8)
    minimum_effect: MinimumEffect = Field(default=0.03, description="of the weighted mean")

    @property
    def name(self) -> str:
        return self.combine

    @property
    def weights(self) -> dict[Metric, float]:
        return {goal.metric: goal.weight for goal in self.goals}

    @property
    def proofs(self) -> int:
        return 1


class GoalsObjective(Frozen):
    """Several metrics, each judged by itself.

    lexicographic: better in a goal, and not worse in those before it. pareto: better in a goal, and not worse in all
    others; what is better in one and worse in another is told, and left to the operator.
    """

    combine: Literal["lexicographic", "pareto"]
    goals: Annotated[list[Goal], AfterValidator(_each_metric_once)] = Field(min_length=2, max_length=4)

    @property
    def name(self) -> str:
        return self.combine

    @property
    def minimum_effect(self) -> float:
        """That of the first goal."""
        return self.goals[0].minimum_effect

    @property
    def weights(self) -> dict[Metric, float]:
        """The metrics, none of which outweighs another."""
        return {goal.metric: 1.0 for goal in self.goals}

    @property
    def proofs(self) -> int:
        return len(self.goals)


def _how_combined(value: object) -> object:
    return value.get("combine", "single") if isinstance(value, dict) else getattr(value, "combine", "single")


AnyObjective = Annotated[
    Annotated[Objective, Tag("single")]
    | Annotated[WeightedObjective, Tag("weighted")]
    | Annotated[GoalsObjective, Tag("lexicographic")]
    | Annotated[GoalsObjective, Tag("pareto")],
    Discriminator(
        _how_combined,
        custom_error_type="combine",
        custom_error_message="expected `combine` to be 'weighted', 'lexicographic' or 'pareto'",
    ),
]


class Guardrails(Frozen):
    """Limits that no gain buys off (docs/decision.md says when each ends a trial). Ratios are variant over control."""

    error_rate: float = Field(default=0.001, ge=0, le=1, description="failed requests, a fraction of all")
    p99_ratio: FiniteFloat = Field(default=2.0, ge=1)
    memory_ratio: FiniteFloat = Field(default=1.5, ge=1)
    open_files_ratio: FiniteFloat = Field(default=3.0, ge=1)
    cpu_ratio: FiniteFloat = Field(default=2.0, ge=1, description="CPU time per request")
    same_body: bool = Field(default=True, description="decoded bodies must hash alike in both arms")


class Timing(Frozen):
    """How long and how often to look. Blocks whose length is left out are calibrated (docs/decision.md)."""

    block_seconds: float | None = Field(
        default=None, ge=0.5, le=600, description="default: calibrated; fleet 5, live traffic 10"
    )
    burn_in_seconds: float | None = Field(
        default=None,
        ge=0,
        le=60,
        description="after each switch, not counted; default: calibrated with the length, else duet 0.1, switchback "
        "0.3, fleet and live traffic 1",
    )
    minimum_pairs: int = Field(default=5, ge=5, le=500)
    maximum_pairs: int = Field(default=40, ge=5, le=2000)
    confirm_pairs: int = Field(default=5, ge=3, le=500, description="fresh pairs after the evidence suffices")


class Variant(Frozen):
    """A set of role parameters laid over the baseline's."""

    name: Name
    parameters: dict[ParameterName, ParameterValue] = Field(min_length=1)
    why: Words = Field(default="", max_length=2000)


Conditions = Annotated[
    dict[ParameterName, Scalar],
    Field(description="the parameter is varied only where these earlier ranges (or `requires`) have these values"),
]


class IntegerRange(Frozen):
    """Whole numbers from `low` to `high`; with a `unit` the value is text, such as 65s."""

    kind: Literal["integer"]
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    log: bool = Field(default=False, description="small numbers are as interesting as large ones; needs step 1")
    unit: str = Field(default="", pattern=r"^[a-zA-Z]{0,2}$")
    when: Conditions = {}


class NumberRange(Frozen):
    """Fractions from `low` to `high`, to so many decimals; with a `unit` the value is text."""

    kind: Literal["number"]
    low: FiniteFloat
    high: FiniteFloat
    decimals: int = Field(default=2, ge=0, le=6)
    log: bool = False
    unit: str = Field(default="", pattern=r"^[a-zA-Z]{0,2}$")
    when: Conditions = {}


class Choice(Frozen):
    """One of these values; `ordered` when they stand from small to large, such as buffer sizes."""

    kind: Literal["choice"]
    values: list[ParameterValue] = Field(min_length=2, max_length=64)
    ordered: bool = False
    when: Conditions = {}


Range = Annotated[IntegerRange | NumberRange | Choice, Field(discriminator="kind")]


class Constraint(Frozen):
    """What no proposal may exceed: the product of these parameters' values.

    A size counts in bytes ("32k" is 32768), a count with a size as their product ("8 32k" is 262144), `auto` workers as
    the host's CPUs. A parameter that is not set counts with the role's default.
    """

    product: list[ParameterName] = Field(min_length=1, max_length=8)
    at_most: str = Field(pattern=r"^[1-9][0-9]{0,14}[kKmMgG]?$", description="a plain number, or bytes such as 256m")
    why: Words = Field(default="", max_length=2000)


class Risk(Frozen):
    """How bad it can get, and how one would notice."""

    level: Literal["low", "medium", "high"]
    note: Words = Field(min_length=1, max_length=2000)


class Experiment(Frozen):
    """`experiments/<name>/meta.json`; the name is the folder's."""

    name: Name
    question: Words = Field(min_length=8, max_length=500)
    why: Words = Field(min_length=8, max_length=4000)
    risk: Risk
    sources: list[Words] = Field(min_length=1, max_length=20)
    design: Design | Literal["auto"] = Field(
        default="auto",
        description="auto: duet, or switchback where only the live instance shows it; fleet: hosts against hosts",
    )
    source: Source = Field(
        default="probe",
        description="live: the requests of real users, by nginx's live log (nginx_live_log), in a switchback",
    )
    minimum_requests: int = Field(
        default=50, ge=1, le=1_000_000, description="of live traffic: fewer in a block are no evidence"
    )
    requires: dict[ParameterName, ParameterValue] = Field(
        default={}, description="parameters set in both arms, so that the question can be asked (an upstream, TLS)"
    )
    allow_service_reduction: bool = Field(
        default=False, description="permit parameters that gain by serving less, such as no access log"
    )
    variants: list[Variant] = Field(default=[], max_length=32, description="this, or `ranges`")
    ranges: dict[ParameterName, Range] = Field(
        default={}, max_length=40, description="what `--strategy bayes` searches, instead of `variants`"
    )
    constraints: list[Constraint] = Field(default=[], max_length=20, description="of `ranges`")
    workload: Workload
    objective: AnyObjective = Objective()
    guardrails: Guardrails = Guardrails()
    timing: Timing = Timing()
