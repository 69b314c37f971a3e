"""The sidecar of a trial's CSV, read strictly: every complaint names the field (docs/csv.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from controller.judge.rows import FORMATS
from controller.judge.schedule import planned_pairs
from controller.model.blocks import Arm, Block
from controller.model.designs import DESIGNS, DesignSpec
from controller.model.experiment import Frozen, Source, Workload
from controller.model.trial import ProbeDesign

_Model = TypeVar("_Model", bound=Frozen)
_MOST_PAIRS = 100_000
# The agent refuses a slower one.
_SLOWEST_RATE = 0.01
# One arm's turn in a saturated duet.
_TURN_SECONDS = 0.1


@dataclass(frozen=True)
class Probing:
    """When the probe was to ask for what.

    Args:
        counted, burn_in: requests of a block.
        cycle: the mix: positions of requests in the workload, again and again.
        offsets: by pair: where its first request stands in the cycle.
        slots: of a saturated block, the burn-in's apart: turns of each arm.
    """

    counted: int
    burn_in: int
    interval_ns: int
    lag_limit_us: int
    cycle: list[int]
    offsets: list[int]
    slots: int
    burn_in_slots: int


@dataclass(frozen=True)
class Sidecar:
    """What the sidecar says that rows are checked against.

    Args:
        minimum_requests: of a block of live traffic; else 0.
        probing: live traffic has no such schedule, nor a mix: nothing in it.
        rows, size, sha256: of the uncompressed CSV.
    """

    host: str
    trial: int
    design: DesignSpec
    source: Source
    arms: dict[Arm, str]
    workload: Workload
    seed: int
    pairs: Sequence[tuple[Arm, ...]]
    block_seconds: float
    burn_in_seconds: float
    minimum_requests: int
    rate: float
    probing: Probing
    blocks: list[Block]
    rows: int
    size: int
    sha256: str

    @property
    def timeout_us(self) -> int:
        return self.workload.timeout_ms * 1000

    @property
    def saturation(self) -> bool:
        return self.workload.mode == "saturation"

    def request(self, pair: int, seq: int) -> int:
        """Which request of the workload a row was."""
        cycle = self.probing.cycle
        return cycle[(self.probing.offsets[pair - 1] + seq) % len(cycle)]

    def expected_status(self, pair: int, seq: int) -> int:
        return self.workload.requests[self.request(pair, seq)].expect_status


class _Fields:
    """Reads one JSON object of the sidecar."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object")
        self._values: dict[str, Any] = value
        self._where = where

    def wrong(self, name: str, text: str) -> ValueError:
        return ValueError(f"{self._where}.{name}: {text}")

    def value(self, name: str) -> object:
        if name not in self._values:
            raise self.wrong(name, "missing")
        return self._values[name]

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(name, f"expected an integer from {low} to {high}")
        return value

    def number(self, name: str, high: float) -> float:
        value = self.value(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
            raise self.wrong(name, f"expected a number from 0 to {high:g}")
        return float(value)

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise self.wrong(name, "expected text")
        return value

    def design(self) -> tuple[ProbeDesign, DesignSpec]:
        value = self.value("design")
        for name in get_args(ProbeDesign):
            if name == value:
                return name, DESIGNS[name]
        raise self.wrong("design", "expected " + ", ".join(DESIGNS))

    def source(self) -> Source:
        """Whose requests the rows are; sidecars older than live traffic do not say."""
        value = self._values.get("source", "probe")
        if value not in ("probe", "live"):
            raise self.wrong("source", "expected probe or live")
        return "live" if value == "live" else "probe"

    def items(self, name: str) -> list[Any]:
        value = self.value(name)
        if not isinstance(value, list):
            raise self.wrong(name, "expected a list")
        return value

    def integers(self, name: str, below: int) -> list[int]:
        values = self.items(name)
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
                raise self.wrong(name, f"expected integers from 0 to {below - 1}")
        return values


def read_sidecar(document: object) -> Sidecar:
    """The sidecar of a sealed trial. Raises ValueError with the field at fault."""
    fields = _Fields(document, "sidecar")
    if fields.value("format") not in FORMATS:
        known = " or ".join(map(str, FORMATS))
        raise fields.wrong("format", f"expected {known}: this sidecar was written by another version of the agent")
    if fields.value("complete") is not True:
        raise fields.wrong("complete", "the trial was never sealed; its evidence is not whole")
    name, design = fields.design()
    source = fields.source()
    if source == "live" and design.not_live:
        raise fields.wrong("source", "live traffic is for a switchback")
    workload = _model(Workload, fields.value("workload"), "sidecar.workload")
    rate = workload.rate
    if rate is None or rate < _SLOWEST_RATE:
        raise fields.wrong("workload.rate", f"expected at least {_SLOWEST_RATE:g} a second")
    arms = _Fields(fields.value("arms"), "sidecar.arms")
    host, trial = fields.text("host"), fields.integer("trial", 1, 10**9)
    schedule = _Fields(fields.value("schedule"), "sidecar.schedule")
    seed = schedule.integer("seed", -(2**63), 2**64)
    planned = schedule.items("pairs")
    if len(planned) > _MOST_PAIRS:
        raise schedule.wrong("pairs", f"more than {_MOST_PAIRS} pairs")
    drawn = _read_pairs(schedule, planned, design, planned_pairs(name, seed, trial, host, len(planned)))
    block_seconds, burn_in_seconds = schedule.number("block_seconds", 3600), schedule.number("burn_in_seconds", 3600)
    probing = _NOTHING_PROBED
    if source == "probe":
        seconds = (block_seconds, burn_in_seconds)
        probing = _read_probing(schedule, workload, rate, len(planned), seconds, turns=design.at_once)
    csv = _Fields(fields.value("csv"), "sidecar.csv")
    return Sidecar(
        host=host,
        trial=trial,
        design=design,
        source=source,
        arms={"control": arms.text("control"), "variant": arms.text("variant")},
        workload=workload,
        seed=seed,
        pairs=drawn,
        rate=rate,
        block_seconds=block_seconds,
        burn_in_seconds=burn_in_seconds,
        minimum_requests=schedule.integer("minimum_requests", 1, 10**9) if source == "live" else 0,
        probing=probing,
        blocks=[_model(Block, value, f"sidecar.blocks[{index}]") for index, value in enumerate(fields.items("blocks"))],
        rows=csv.integer("rows", 0, 10**12),
        size=csv.integer("bytes", 0, 10**15),
        sha256=csv.text("sha256"),
    )


_NOTHING_PROBED = Probing(0, 0, 0, 0, [], [], 0, 0)


def _read_probing(
    schedule: _Fields, workload: Workload, rate: float, pairs: int, seconds: tuple[float, float], *, turns: bool
) -> Probing:
    """When the probe was to ask for what; `seconds`: of a block and its burn-in; `turns`: saturated arms take turns."""
    block_seconds, burn_in_seconds = seconds
    interval_ns = schedule.integer("interval_ns", 1, 10**12)
    if interval_ns != round(1e9 / rate):
        raise schedule.wrong("interval_ns", f"{interval_ns} is not the interval of {rate:g} requests a second")
    mix = _Fields(schedule.value("mix"), "sidecar.schedule.mix")
    cycle = mix.integers("cycle", len(workload.requests))
    if not cycle:
        raise mix.wrong("cycle", "empty")
    offsets = mix.integers("offsets", len(cycle))
    if len(offsets) != pairs:
        raise mix.wrong("offsets", f"expected one a pair, {pairs}, got {len(offsets)}")
    return Probing(
        counted=max(1, round(rate * block_seconds)),
        burn_in=math.ceil(rate * burn_in_seconds),
        interval_ns=interval_ns,
        lag_limit_us=schedule.integer("lag_limit_us", 0, 10**9),
        cycle=cycle,
        offsets=offsets,
        slots=max(1, round(block_seconds / (2 * _TURN_SECONDS))) if turns else 1,
        burn_in_slots=1 if burn_in_seconds else 0,
    )


def _read_pairs(
    schedule: _Fields, planned: list[Any], design: DesignSpec, expected: Sequence[tuple[Arm, ...]]
) -> Sequence[tuple[Arm, ...]]:
    """The order of the arms. In the fleet design it hangs on all hosts, so the judge checks it, who knows them."""
    if design.between_hosts:
        for number, given in enumerate(planned, 1):
            if given not in (["control", "control"], ["control", "variant"]):
                raise schedule.wrong("pairs", f"period {number} does not begin with control")
        return [tuple(given) for given in planned]
    for number, (given, order) in enumerate(zip(planned, expected, strict=True), 1):
        if given != list(order):
            raise schedule.wrong("pairs", f"pair {number} is not in the order that seed, trial and host give")
    return expected


def _model(model: type[_Model], value: object, where: str) -> _Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        raise ValueError(f"{place}: {first['msg']}") from None
