"""The ledger of a search: its recorded stints in order, and what they add up to. Every proposer starts from here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.judge.evidence import log_gain
from controller.model.experiment import Frozen, Variant
from controller.model.trial import Effect, Judgement, ReasonCode, Stint
from controller.search.space import Parameters

# No value for these: nothing was measured, or nothing that can be trusted.
_FAILED = frozenset(
    {"rejected-by-nginx", "measurement-invalid", "guardrail-missing-data", "host-failed", "interrupted"}
)


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
    pairs: int

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
            pairs=judgement.pairs if judgement else (before.pairs if before else 0),
        )
    return found


@dataclass(frozen=True)
class Look:
    """What is known of one setting, for those that learn from it.

    gain: ln(control / variant), or None when nothing was measured, or nothing that can be trusted.
    pairs: how many told it.
    """

    parameters: Parameters
    gain: float | None
    pairs: int


def looks(ledger: Iterable[Entry]) -> list[Look]:
    """All settings in the order in which they were first measured. What broke a guardrail is as bad as the worst."""
    known = list(standings(ledger).values())
    worst = min([0.0, *(each.gain for each in known if math.isfinite(each.gain))])

    def gain(of: Standing) -> float | None:
        if of.ended in _FAILED:
            return None
        if str(of.ended).startswith("guardrail-"):
            return worst
        return of.gain if math.isfinite(of.gain) else None

    return [Look(parameters=dict(each.variant.parameters), gain=gain(each), pairs=each.pairs) for each in known]


def seconds_spent(ledger: Sequence[Entry]) -> float:
    return sum(entry.seconds for entry in ledger)
