"""What an A/A at the start of a trial showed, and what was chosen from it: part of the trial's plan."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.model.experiment import Frozen

OpenSetting = Literal["rate", "block_seconds", "burn_in_seconds"]


class Look(Frozen):
    """One stretch of control against control."""

    number: int = Field(ge=1)
    rate: float = Field(description="requests per second")
    block_seconds: float = Field(description="without a burn-in: what follows a switch is to be seen")
    pairs_per_host: int = Field(ge=1)


class Step(Frozen):
    """A look that was taken, and what it showed.

    Its evidence is in `trials/<trial>/calibration/<number>/`, on the hosts as trial `100 * trial + number` of
    `<run>.calibration`.
    """

    look: Look
    sequence: list[str] = Field(description="host of each pair, in the order of arrival")
    pairs: int
    spoilt: int = Field(description="pairs in which the probe did not keep its schedule")
    p50_us: float | None = Field(default=None, description="median over the blocks that count")
    cpu: float | None = Field(default=None, description="CPUs that nginx used; None where the hosts do not tell")
    lag_p99_us: float | None = None
    fits: bool = Field(description="a trial can be measured at this rate")
    note: str = ""


class BlockLength(Frozen):
    """What a trial would cost with blocks of this length."""

    block_seconds: float
    noise: float = Field(description="standard deviation of a pair's gain, as a natural logarithm")
    pairs: float | None = Field(
        description="expected pairs until a gain of the minimum effect is proven and confirmed; "
        "null when the proof would take more than the trial's limit"
    )
    seconds: float | None = Field(description="expected seconds of these pairs on one host")


class Calibration(Frozen):
    """How the settings that an experiment left open were chosen."""

    open: list[OpenSetting]
    trial: int = Field(ge=1, description="the trial that measured it, for all trials of the experiment")
    hosts: list[str] = Field(default=[], description="that measured it; empty: the trial's")
    steps: list[Step]
    rate: float
    block_seconds: float
    burn_in_seconds: float
    noise: float | None = Field(default=None, description="of a pair in the A/A's own blocks; None: too few pairs")
    noise_between: float = Field(default=0.0, description="the part of it that longer blocks do not lessen")
    alike: float | None = Field(default=None, description="the typical gain of control over control, a fraction")
    pair_seconds: float = Field(default=0.0, description="what a pair took beside its blocks")
    lengths: list[BlockLength] = []
    sound: bool = Field(description="the A/A found nothing wrong with the measurement")
    note: str = ""
