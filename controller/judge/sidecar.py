"""The sidecar of a trial's CSV, read strictly: every complaint names the field (docs/csv.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from controller.judge.rows import FORMATS
from controller.judge.schedule import planned_pairs
from controller.model.blocks import LIMITS, Arm, Block, Limits
from controller.model.designs import DESIGNS, DesignSpec
from controller.model.experiment import Workload
from controller.model.trial import ProbeDesign

# The agent refuses a slower one.
_SLOWEST_RATE = 0.01
# One arm's turn in a saturated duet.
_TURN_SECONDS = 0.1
# What pydantic would say in words of Python.
_WORDS = {"missing": "missing", "model_type": "expected an object", "list_type": "expected a list"}

Natural = Annotated[int, Field(strict=True, ge=0, le=10**15)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=3600)]
Naturals = Annotated[list[Natural], FailFast()]
Order = Annotated[list[Arm], FailFast(), Field(max_length=2)]


class _Object(BaseModel):
    """One JSON object of the sidecar, or what the judge needs of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Schedule(_Object):
    seed: int = Field(strict=True, ge=-(2**63), le=2**64)
    pairs: Annotated[list[Order], FailFast()] = Field(max_length=100_000)
    block_seconds: Seconds
    burn_in_seconds: Seconds


class Mix(_Object):
    """`cycle`: positions of requests in the workload, again and again; `offsets`: where each pair begins in it."""

    cycle: Naturals = Field(min_length=1)
    offsets: Naturals


class ProbeSchedule(Schedule):
    interval_ns: Natural
    lag_limit_us: Natural
    mix: Mix


class LiveSchedule(Schedule):
    """`minimum_requests`: of a block that counts."""

    minimum_requests: int = Field(strict=True, ge=1, le=10**9)


class Arms(_Object):
    """Ids of configurations."""

    control: str
    variant: str


class Csv(_Object):
    """Of the uncompressed CSV."""

    rows: Natural
    bytes: Natural
    sha256: str


class Sidecar(_Object):
    """What the sidecar says that rows are checked against."""

    host: str
    trial: int = Field(strict=True, ge=1, le=10**9)
    design: ProbeDesign
    arms: Arms
    workload: Workload
    schedule: Schedule
    limits: Limits = Field(default=LIMITS, description="earlier agents did not tell them, and had these")
    blocks: Annotated[list[Block], FailFast()]
    csv: Csv

    @property
    def pairs(self) -> Sequence[Sequence[Arm]]:
        return self.schedule.pairs

    @property
    def spec(self) -> DesignSpec:
        return DESIGNS[self.design]

    @property
    def timeout_us(self) -> int:
        return self.workload.timeout_ms * 1000

    def configuration(self, arm: Arm) -> str:
        return self.arms.control if arm == "control" else self.arms.variant


class LiveSidecar(Sidecar):
    """Of requests of real users."""

    schedule: LiveSchedule


class ProbeSidecar(Sidecar):
    """Of requests that the probe sent by a schedule."""

    schedule: ProbeSchedule

    @property
    def rate(self) -> float:
        return self.workload.rate or 0.0

    @property
    def saturation(self) -> bool:
        return self.workload.mode == "saturation"

    @property
    def counted(self) -> int:
        """Requests of a block that count."""
        return max(1, round(self.rate * self.schedule.block_seconds))

    @property
    def burn_in(self) -> int:
        """Requests of a block's burn-in."""
        return math.ceil(self.rate * self.schedule.burn_in_seconds)

    @property
    def slots(self) -> int:
        """Of a saturated block, its burn-in's too: turns of each arm."""
        slots = max(1, round(self.schedule.block_seconds / (2 * _TURN_SECONDS))) if self.spec.at_once else 1
        return slots + (1 if self.schedule.burn_in_seconds else 0)

    def request(self, pair: int, seq: int) -> int:
        """Which request of the workload a row was."""
        mix = self.schedule.mix
        return mix.cycle[(mix.offsets[pair - 1] + seq) % len(mix.cycle)]

    def expected_status(self, pair: int, seq: int) -> int:
        return self.workload.requests[self.request(pair, seq)].expect_status


Told = TypeVar("Told", ProbeSidecar, LiveSidecar)


def read_sidecar(document: object) -> ProbeSidecar | LiveSidecar:
    """The sidecar of a sealed trial. Raises ValueError with the field at fault."""
    if not isinstance(document, dict):
        raise _wrong("", "expected an object")
    if document.get("format") not in FORMATS:
        known = " or ".join(map(str, FORMATS))
        raise _wrong("format", f"expected {known}: this sidecar was written by another version of the agent")
    if document.get("complete") is not True:
        raise _wrong("complete", "the trial was never sealed; its evidence is not whole")
    # Sidecars older than live traffic do not say it.
    source = document.get("source", "probe")
    if source not in ("probe", "live"):
        raise _wrong("source", "expected probe or live")
    told = _validated(LiveSidecar, document) if source == "live" else _validated(ProbeSidecar, document)
    if told.workload.rate is None or told.workload.rate < _SLOWEST_RATE:
        raise _wrong("workload.rate", f"expected at least {_SLOWEST_RATE:g} a second")
    if source == "live" and told.spec.not_live:
        raise _wrong("source", "live traffic is for a switchback")
    _check_pairs(told)
    if isinstance(told, ProbeSidecar):
        _check_requests(told)
    return told


def _validated(kind: type[Told], document: dict[str, Any]) -> Told:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    raise _wrong(place[1:], _WORDS.get(first["type"], first["msg"].replace("Input should be ", "expected ")))


def _wrong(field: str, text: str) -> ValueError:
    return ValueError(f"sidecar{'.' if field else ''}{field}: {text}")


def _check_pairs(told: Sidecar) -> None:
    """The order of the arms. In the fleet design it hangs on all hosts, so the judge checks it, who knows them."""
    seed, pairs = told.schedule.seed, told.schedule.pairs
    if told.spec.between_hosts:
        for number, given in enumerate(pairs, 1):
            if len(given) != 2 or given[0] != "control":
                raise _wrong("schedule.pairs", f"period {number} does not begin with control")
        return
    drawn = planned_pairs(told.design, seed, told.trial, told.host, len(pairs))
    for number, (given, order) in enumerate(zip(pairs, drawn, strict=True), 1):
        if given != list(order):
            raise _wrong("schedule.pairs", f"pair {number} is not in the order that seed, trial and host give")


def _check_requests(told: ProbeSidecar) -> None:
    """When the probe was to ask for what."""
    schedule, mix = told.schedule, told.schedule.mix
    if schedule.interval_ns != round(1e9 / told.rate):
        raise _wrong(
            "schedule.interval_ns",
            f"{schedule.interval_ns} is not the interval of {told.rate:g} requests a second",
        )
    for name, numbers, below in (
        ("cycle", mix.cycle, len(told.workload.requests)),
        ("offsets", mix.offsets, len(mix.cycle)),
    ):
        if any(number >= below for number in numbers):
            raise _wrong(f"schedule.mix.{name}", f"expected integers from 0 to {below - 1}")
    if len(mix.offsets) != len(schedule.pairs):
        raise _wrong("schedule.mix.offsets", f"expected one a pair, {len(schedule.pairs)}, got {len(mix.offsets)}")
