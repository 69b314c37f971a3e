"""The ledger of a search: its recorded stints in order, and what they add up to. Every proposer starts from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.judge.evidence import log_gain
from controller.model.experiment import Frozen, Variant
from controller.model.trial import Effect, Judgement, ReasonCode, Stint


class Entry(Frozen):
    """One recorded stint.

    `judgement` is over all stints of the variant so far, recomputed from their CSVs; None when none could be measured.
    `ended` says that the variant is out of the search, and why (`proven-gain`: it has won).
    """

    trial: int
    variant: Variant
    stint: Stint
    judgement: Judgement | None
    ended: ReasonCode | None = None
    note: str = ""
    seconds: float = 0.0
    failed_hosts: list[str] = []


class Try(Frozen):
    """A proposal: measure this variant for so many pairs on each host."""

    trial: int
    variant: Variant
    pairs_per_host: int
    alone: bool = False
    why: str


class Stop(Frozen):
    """Nothing more to try. `ranking` holds the trials worth a final look, the best first."""

    ranking: list[int] = []
    why: str


Proposal = Try | Stop


@dataclass(frozen=True)
class Standing:
    """Where one variant stands after its stints."""

    trial: int
    variant: Variant
    stints: int
    effect: Effect | None
    evidence: float
    ended: ReasonCode | None
    alone: bool

    @property
    def gain(self) -> float:
        """The typical gain so far, ln(control / variant); minus infinity when too few pairs tell one."""
        return float("-inf") if self.effect is None else log_gain(min(self.effect.estimate, 0.999999))

    @property
    def rank(self) -> tuple[float, float, int]:
        """Larger is better: the typical gain, then the evidence, then who came first."""
        return self.gain, self.evidence, -self.trial


def standings(ledger: Iterable[Entry]) -> dict[int, Standing]:
    """Trial -> where it stands, in the order in which the trials were first measured."""
    found: dict[int, Standing] = {}
    for entry in ledger:
        before = found.get(entry.trial)
        judgement = entry.judgement
        found[entry.trial] = Standing(
            trial=entry.trial,
            variant=entry.variant,
            stints=1 if before is None else before.stints + 1,
            effect=judgement.effect if judgement else (before.effect if before else None),
            evidence=judgement.evidence if judgement else (before.evidence if before else 0.0),
            ended=entry.ended,
            alone=entry.stint.alone,
        )
    return found


def seconds_spent(ledger: Sequence[Entry]) -> float:
    return sum(entry.seconds for entry in ledger)
