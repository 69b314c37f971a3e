"""What must hold of live traffic beside the guardrails of every trial: enough resolution, an even share of requests."""

from __future__ import annotations

import math

from controller.judge.evidence import SignProcess
from controller.judge.guardrails import Breach
from controller.model.trial import Pair

# One in a thousand, both ways together.
SAMPLE_RATIO_EVIDENCE = 2000.0


class TrafficWatch:
    """Checks every pair of a trial on live traffic, in the order of judging.

    Both blocks of a pair are equally long and their order was drawn, so if the arms are alike, which of them had more
    requests is that coin's doing, however unevenly users come. A test of the shares as of independent requests would
    take a crawler's burst for the variant's doing; this one, the judge's own process on `ln(control / variant)` of the
    requests, may also be looked at after every pair.
    """

    def __init__(self) -> None:
        self._fewer, self._more = SignProcess(), SignProcess()
        self._requests = {"control": 0, "variant": 0}

    def add(self, pair: Pair) -> Breach | None:
        """What this pair shows, or None."""
        return self._check_resolution(pair) or self._check_share(pair)

    @staticmethod
    def _check_resolution(pair: Pair) -> Breach | None:
        for block in (pair.control, pair.variant):
            if block.requests and block.p50_us == 0:
                return Breach(
                    "guardrail-missing-data",
                    f"{pair.host}, pair {pair.number}: most of {block.arm}'s requests took less than the millisecond "
                    "that nginx's log can tell; ask about them with the probe instead of live traffic",
                )
        return None

    def _check_share(self, pair: Pair) -> Breach | None:
        control, variant = pair.control.requests, pair.variant.requests
        if not control or not variant:
            return None
        self._requests["control"] += control
        self._requests["variant"] += variant
        lean = math.log(control / variant)
        self._fewer.add(lean)
        self._more.add(-lean)
        for process, word in ((self._fewer, "fewer"), (self._more, "more")):
            if process.log_value >= math.log(SAMPLE_RATIO_EVIDENCE):
                return Breach(
                    "guardrail-sample-ratio",
                    f"the variant had {word} requests than the control, {self._requests['variant']} to "
                    f"{self._requests['control']} in blocks of equal length (evidence {process.value:.3g})",
                )
        return None
