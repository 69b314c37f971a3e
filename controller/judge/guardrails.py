"""The guardrails of a trial: limits that no gain can buy off. Each pair is checked; no data is never a pass.

Two kinds of limit, because two kinds of figure:

* Errors, bodies and missing figures are facts: they end the trial with the pair that shows them.
* Ratios are measured. Memory and open files are steady, so two pairs running on one host are enough. p99 and CPU time
  per request of one short block are noisy (a single p99 may double by chance), so a trial ends when the evidence that
  the ratio is beyond its limit reaches 20, by the same process that proves gains; pairs that all exceed the limit get
  there in five to six. That only stops harm early: a KEEP also needs the median ratio within the limit, over the pairs
  that prove the gain and over the fresh ones that confirm it.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from controller.judge.evidence import SignProcess
from controller.judge.gain import figure, log_ratio
from controller.model.blocks import Block
from controller.model.experiment import Guardrails
from controller.model.metrics import GUARDRAILS, Guardrail, MetricSpec
from controller.model.trial import Pair, ReasonCode

HARM_EVIDENCE = 20.0
PAIRS_RUNNING = 2
# One failed request may be anybody's; the second one counts.
FEWEST_ERRORS = 2
# Pairs whose blocks the probe spoilt are measured again, but not for ever: this many, and more than this share of all.
FEWEST_INVALID = 5
INVALID_SHARE = 0.34


@dataclass(frozen=True)
class Breach:
    """A guardrail that ends the trial."""

    reason: ReasonCode
    note: str


class _Ratio:
    """One metric of the variant over control's, against its limit."""

    def __init__(self, metric: MetricSpec, guardrail: Guardrail, limit: float) -> None:
        self._metric = metric
        self._guardrail = guardrail
        self._limit = limit
        self._excesses: list[float] = []
        self._running: dict[str, int] = {}
        self._process = SignProcess()

    def add(self, pair: Pair) -> Breach | None:
        control, variant = figure(pair.control, self._metric), figure(pair.variant, self._metric)
        if control is None or variant is None:
            return _missing(pair, self._guardrail.name)
        excess = log_ratio(variant, control) - math.log(self._limit)
        if variant - control < self._guardrail.material:
            excess = min(excess, 0.0)
        self._excesses.append(excess)
        self._running[pair.host] = self._running.get(pair.host, 0) + 1 if excess > 0 else 0
        if self._guardrail.steady:
            return self._breach(0) if self._running[pair.host] >= PAIRS_RUNNING else None
        self._process.add(excess)
        return self._breach(0) if self._process.log_value >= math.log(HARM_EVIDENCE) else None

    def before_keep(self, fresh: int) -> Breach | None:
        """Whether the figure's median is beyond the limit in the last `fresh` pairs; 0 means all pairs so far."""
        if statistics.median(self._excesses[-fresh:]) > 0:
            return self._breach(-fresh)
        if self._guardrail.steady and any(self._running.values()):
            return self._breach(-1)
        return None

    def _breach(self, since: int) -> Breach:
        ratio = math.exp(statistics.median(self._excesses[since:])) * self._limit
        note = f"{self._guardrail.name} is {ratio:.3g} x control's (limit {self._limit:g})"
        return Breach(self._guardrail.reason, note)


class GuardrailWatch:
    """Checks every pair of one trial, in the order of judging."""

    def __init__(self, limits: Guardrails) -> None:
        self._limits = limits
        self._errors = {"control": 0, "variant": 0}
        self._requests = {"control": 0, "variant": 0}
        self._pairs = 0
        self._invalid = 0
        self._ratios = [
            _Ratio(metric, guardrail, getattr(limits, limit)) for limit, (metric, guardrail) in GUARDRAILS.items()
        ]

    def add(self, pair: Pair) -> Breach | None:
        """The first guardrail that this pair breaks, or None."""
        self._pairs += 1
        breach = self._check_bodies(pair) or self._check_errors(pair)
        if breach:
            return breach
        if not pair.valid:
            return self._count_invalid(pair)
        return self._check_ratios(pair)

    def before_keep(self, fresh: int = 0) -> Breach | None:
        """What stands in the way of a KEEP although it did not end the trial.

        Asked when the gain is proven, over all pairs (`fresh` 0), and when it is confirmed, over the last `fresh`.
        """
        for ratio in self._ratios:
            breach = ratio.before_keep(fresh)
            if breach:
                return breach
        return None

    def _check_bodies(self, pair: Pair) -> Breach | None:
        if not self._limits.same_body:
            return None
        control, variant = pair.control.bodies, pair.variant.bodies
        if not control or control.keys() != variant.keys():
            return _missing(pair, "body hashes")
        for request, expected in sorted(control.items()):
            found = variant[request]
            if expected.startswith("error:"):
                return _missing(pair, f"control's body of {request} ({expected})")
            if "varies" in {expected, found}:
                return _missing(
                    pair, f"a body of {request} that stays the same (guardrails.same_body: false if it need not)"
                )
            if expected != found:
                what = f"could not be had ({found})" if found.startswith("error:") else "differs from control's"
                return Breach("guardrail-body", f"{pair.host}, pair {pair.number}: the body of {request} {what}")
        return None

    def _check_errors(self, pair: Pair) -> Breach | None:
        for arm, block in (("control", pair.control), ("variant", pair.variant)):
            if block.requests < 1 or not 0 <= block.errors <= block.requests:
                return _missing(
                    pair, f"requests of {arm}{f' ({block.invalid_reason})' if block.invalid_reason else ''}"
                )
            self._errors[arm] += failures(block)
            self._requests[arm] += block.requests
        limit = self._limits.error_rate
        for where, errors, requests in (
            (f"{pair.host}, pair {pair.number}", failures(pair.variant), pair.variant.requests),
            ("all pairs", self._errors["variant"], self._requests["variant"]),
        ):
            if errors >= FEWEST_ERRORS and errors > limit * requests:
                return Breach(
                    "guardrail-errors",
                    f"{where}: {errors} of the variant's {requests} requests failed (limit {limit:g} of all; "
                    f"control, all pairs: {self._errors['control']} of {self._requests['control']})",
                )
        return None

    def _count_invalid(self, pair: Pair) -> Breach | None:
        self._invalid += 1
        if self._invalid < FEWEST_INVALID or self._invalid <= INVALID_SHARE * self._pairs:
            return None
        why = pair.control.invalid_reason or pair.variant.invalid_reason or "no reason given"
        return Breach("guardrail-missing-data", f"{self._invalid} of {self._pairs} pairs are invalid, the last: {why}")

    def _check_ratios(self, pair: Pair) -> Breach | None:
        for ratio in self._ratios:
            breach = ratio.add(pair)
            if breach:
                return breach
        return None


def failures(block: Block) -> int:
    """Failed requests, without those that the probe itself could not make (they make the block invalid)."""
    return block.errors - min(block.errors, block.error_classes.get("local", 0))


def _missing(pair: Pair, what: str) -> Breach:
    return Breach("guardrail-missing-data", f"{pair.host}, pair {pair.number}: no {what}; no data is never a pass")
