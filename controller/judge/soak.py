"""The soak: a proven variant alone, live and under load for some seconds. No gain is asked for; slow harm ends it.

What it is held against is the control of the pairs just before: the live check's, or the trial's own in a switchback.
Latency is not judged here, since nothing runs beside it; failures, bodies, memory, open files, the error log and the
host's pressure are. What may come in bursts counts only when it is there most of the time, and what only drifts
only when it rises all the time, by a material amount, and towards its limit within an hour: what a fresh worker
allocates once is no leak.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from controller.judge.guardrails import (
    FEWEST_ERRORS,
    PAIRS_RUNNING,
    Breach,
    failures,
)
from controller.model.blocks import Block
from controller.model.experiment import Guardrails
from controller.model.metrics import GUARDRAILS
from controller.model.trial import Judgement, Pair, ReasonCode, TrialPlan

# A soak is looked at in so many stretches. A rise in each of them but the first two is no chance: even a random walk
# does that once in 512 times.
STRETCHES = 12
SETTLING = 2
BLOCK_SECONDS = (0.5, 5.0)
HORIZON_SECONDS = 3600.0
CLIMB_RSS_BYTES = 1.0 * 2**20
CLIMB_FILES = 16.0
# Counts are higher when chance explains it less often than this, and they are worth a look.
CHANCE = 0.001
FEWEST_LINES = 5
FEWEST_RETRANSMITS = 10
TIMES_CONTROL = 3.0
# Share of the time that tasks of the host stood still, above control's.
STALLED_SHARE = 0.10


def soak_blocks(seconds: float) -> tuple[int, float]:
    """(blocks, seconds of each): short enough that failures are seen soon, and a dozen of them if there is the time."""
    shortest, longest = BLOCK_SECONDS
    count = max(1, math.ceil(seconds / longest), min(STRETCHES, int(seconds / shortest)))
    return count, max(shortest, round(seconds / count, 3))


class SoakJudge:
    """Judges the blocks of a soak in the order of arrival; each host by itself, the first harm ends it for all."""

    def __init__(self, plan: TrialPlan, reference: Sequence[Pair]) -> None:
        """`reference`: pairs whose control blocks ran on the same hosts."""
        controls = {host: [pair.control for pair in reference if pair.host == host] for host in plan.hosts}
        self._planned = plan.timing.maximum_pairs
        self._watches = {
            host: _Watch(host, controls[host], plan.experiment.guardrails, self._planned) for host in plan.hosts
        }
        self._blocks = 0
        self._breach: Breach | None = None

    def add(self, host: str, block: Block) -> Judgement:
        """Fold the next block of a host. Raises ValueError when the verdict is there already."""
        if self.decided:
            raise ValueError(f"{host}, block {block.block}: a block after the verdict")
        self._blocks += 1
        self._breach = self._watches[host].add(block)
        return self.judgement()

    @property
    def decided(self) -> bool:
        return self._breach is not None or all(watch.complete for watch in self._watches.values())

    def judgement(self) -> Judgement:
        """`pairs` counts blocks; there is no evidence of a gain to tell."""
        told = Judgement(action="continue", evidence=0.0, evidence_slower=0.0, threshold=0.0, pairs=self._blocks)
        if self._breach is not None:
            return told.model_copy(
                update={"action": "revert", "reason": self._breach.reason, "note": self._breach.note}
            )
        if self.decided:
            note = f"healthy in {self._blocks} blocks"
            return told.model_copy(update={"action": "healthy", "note": note})
        return told


def judge_soak(plan: TrialPlan, reference: Sequence[Pair], blocks: Iterable[tuple[str, Block]]) -> Judgement:
    """The last judgement over (host, block) in the order of judging. Raises ValueError as `SoakJudge.add` does."""
    judge = SoakJudge(plan, reference)
    for host, block in blocks:
        judge.add(host, block)
    return judge.judgement()


@dataclass(frozen=True)
class _Figure:
    """A figure that stays the same while all is well.

    Args:
        of: the figure itself; `climbing` leaves out what may rise for good reasons.
        material: bytes or files above control's that never matter; `climb`: growth that is worth a look.
        unit: its size and name.
    """

    name: str
    reason: ReasonCode
    of: Callable[[Block], int | None]
    climbing: Callable[[Block], float | None]
    ratio: float
    material: float
    climb: float
    unit: tuple[float, str]

    def limit(self, usual: float) -> float:
        return max(usual * self.ratio, usual + self.material)


def _figures(limits: Guardrails) -> list[_Figure]:
    return [
        _Figure(
            name="memory",
            reason="soak-memory",
            of=lambda block: block.metrics.rss_bytes,
            climbing=lambda block: block.metrics.rss_bytes,
            ratio=limits.memory_ratio,
            material=GUARDRAILS["memory_ratio"][1].material,
            climb=CLIMB_RSS_BYTES,
            unit=(2**20, "MiB"),
        ),
        _Figure(
            name="open files",
            reason="soak-open-files",
            of=lambda block: block.metrics.open_files,
            climbing=_files_of_nobody,
            ratio=limits.open_files_ratio,
            material=GUARDRAILS["open_files_ratio"][1].material,
            climb=CLIMB_FILES,
            unit=(1, "files"),
        ),
    ]


def _files_of_nobody(block: Block) -> float | None:
    """Open files less two a connection: users who come back after the switch, and their upstreams, are no leak."""
    files, users = block.metrics.open_files, block.metrics.active_connections
    return None if files is None or users is None else float(files - 2 * users)


class _Watch:
    """One host's soak."""

    def __init__(self, host: str, controls: list[Block], limits: Guardrails, planned: int) -> None:
        self._host = host
        self._controls = controls
        self._limits = limits
        self._figures = _figures(limits)
        self._planned = planned
        self._blocks: list[Block] = []

    @property
    def complete(self) -> bool:
        return len(self._blocks) >= self._planned

    def add(self, block: Block) -> Breach | None:
        self._blocks.append(block)
        if not self._controls:
            return self._missing("control block to compare with")
        if block.arm != "variant" or block.block != len(self._blocks):
            return Breach("measurement-invalid", f"{self._host}: block {len(self._blocks)} of the variant was due")
        for check in (self._check_requests, self._check_ran, self._check_bodies, self._check_steady):
            breach = check()
            if breach:
                return breach
        return (self._check_climb() or self._check_log() or self._check_pressure()) if self.complete else None

    def _missing(self, what: str) -> Breach:
        return Breach("guardrail-missing-data", f"{self._host}, soak: no {what}; no data is never a pass")

    def _check_requests(self) -> Breach | None:
        if not all(0 <= block.errors <= block.requests for block in self._blocks):
            return self._missing("requests")
        failed = sum(failures(block) for block in self._blocks)
        # What the probe itself could not ask says nothing.
        asked = sum(block.requests - block.errors for block in self._blocks) + failed
        if 2 * asked <= sum(block.requests for block in self._blocks):
            return self._missing("requests that the probe could make")
        if failed >= FEWEST_ERRORS and failed > self._limits.error_rate * asked:
            return Breach("soak-errors", f"{self._host}: {failed} of {asked} requests failed")
        return None

    def _check_ran(self) -> Breach | None:
        """The variant is switched to once: where nginx does not run it any more, nothing is watched from then on."""
        block = self._blocks[-1]
        if not block.astray:
            return None
        why = block.invalid_reason or f"nginx did not run {block.configuration} all the while"
        return Breach("measurement-invalid", f"{self._host}, soak, block {block.block}: {why}")

    def _check_bodies(self) -> Breach | None:
        if not self._limits.same_body:
            return None
        expected = self._controls[0].bodies
        for request, digest in sorted(self._blocks[-1].bodies.items()):
            if digest != expected.get(request):
                return Breach("guardrail-body", f"{self._host}, soak: the body of {request} differs from control's")
        return None if expected.keys() == self._blocks[-1].bodies.keys() else self._missing("body hashes")

    def _check_steady(self) -> Breach | None:
        """Memory and open files beyond their limit, in blocks running."""
        for figure in self._figures:
            usual = _median([figure.of(block) for block in self._controls])
            last = [figure.of(block) for block in self._blocks[-PAIRS_RUNNING:]]
            if usual is None or None in last:
                return self._missing(figure.name)
            if len(last) == PAIRS_RUNNING and all(each is not None and each > figure.limit(usual) for each in last):
                times = f"{(last[-1] or 0.0) / usual:.3g} x control's" if usual else "more than control's none"
                return Breach(figure.reason, f"{self._host}: {figure.name}: {times} (limit {figure.ratio:g} x)")
        return None

    def _stretches(self) -> list[list[Block]]:
        """The blocks in a dozen stretches of time; fewer in a soak of seconds."""
        count = min(STRETCHES, len(self._blocks))
        ends = [len(self._blocks) * number // count for number in range(count + 1)]
        return [self._blocks[start:end] for start, end in pairwise(ends)]

    def _check_climb(self) -> Breach | None:
        """Memory or open files that rise in every stretch once they have settled, and reach their limit in an hour."""
        stretches = self._stretches()
        if len(stretches) < STRETCHES:
            return None  # too short to tell a climb from a start
        settled = stretches[SETTLING:]
        times = [statistics.median(block.started_at for block in each) for each in settled]
        for figure in self._figures:
            usual = _median([figure.of(block) for block in self._controls]) or 0.0
            values = [_median([figure.climbing(block) for block in each]) for each in settled]
            known = [value for value in values if value is not None]
            if len(known) < len(values) or known[-1] - known[0] < figure.climb:
                continue
            slope = theil_sen(times, known)
            rises = all(after > before for before, after in pairwise(known))
            if rises and known[-1] + slope * HORIZON_SECONDS > figure.limit(usual):
                rate = f"{slope * 60 / figure.unit[0]:.3g} {figure.unit[1]}"
                return Breach(figure.reason, f"{self._host}: {figure.name}: rises all the time, by {rate} a minute")
        return None

    def _check_log(self) -> Breach | None:
        """Errors that nginx logs more often than under the control, and most of the time: bursts come by themselves."""
        lines, seconds = self._sum(self._blocks, lambda block: block.metrics.error_log_lines)
        usual, usual_seconds = self._sum(self._controls, lambda block: block.metrics.error_log_lines)
        if usual is None:
            return None  # nginx logs where nobody looks: the same in both arms
        if lines is None:
            return self._missing("error log")
        stretches = self._stretches()
        troubled = sum(any(block.metrics.error_log_lines for block in each) for each in stretches)
        if lines < FEWEST_LINES or 2 * troubled <= len(stretches) or not higher(lines, seconds, usual, usual_seconds):
            return None
        upstream = sum(block.metrics.upstream_errors or 0 for block in self._blocks)
        about = f", {upstream} of them about an upstream" if upstream else ""
        return Breach(
            "soak-error-log",
            f"{self._host}: {lines} errors logged in {seconds:.0f} s{about}; "
            f"under control {usual} in {usual_seconds:.0f} s",
        )

    def _check_pressure(self) -> Breach | None:
        for name, told in (
            ("memory", lambda block: block.metrics.psi_memory_us),
            ("disks", lambda block: block.metrics.psi_io_us),
        ):
            stalled, usual = _share(self._blocks, told), _share(self._controls, told)
            if usual is None:
                continue  # the host does not tell
            if stalled is None:
                return self._missing(f"pressure on {name}")
            if stalled > usual + STALLED_SHARE:
                return Breach(
                    "soak-pressure",
                    f"{self._host}: tasks waited for {name} {stalled:.0%} of the time; under control {usual:.0%}",
                )
        sent, seconds = self._sum(self._blocks, lambda block: block.metrics.retransmits)
        usual_sent, usual_seconds = self._sum(self._controls, lambda block: block.metrics.retransmits)
        if usual_sent is None:
            return None
        if sent is None:
            return self._missing("TCP counters")
        if sent >= FEWEST_RETRANSMITS and higher(sent, seconds, usual_sent, usual_seconds):
            return Breach(
                "soak-pressure",
                f"{self._host}: {sent} TCP segments sent again in {seconds:.0f} s; "
                f"under control {usual_sent} in {usual_seconds:.0f} s",
            )
        return None

    @staticmethod
    def _sum(blocks: list[Block], figure: Callable[[Block], int | None]) -> tuple[int | None, float]:
        """(sum of a count, seconds); None where any block does not tell it."""
        told = [figure(block) for block in blocks]
        seconds = sum(block.seconds for block in blocks)
        return (None if None in told else sum(each or 0 for each in told)), seconds


def higher(count: int, seconds: float, usual: int, usual_seconds: float) -> bool:
    """Whether events came more often than usual: over three times as often, and not by chance.

    Given all events, the count is binomial with the share of the time as its probability, if both rates are alike
    (Przyborowski and Wilenski 1940).
    """
    if count * usual_seconds <= TIMES_CONTROL * usual * seconds:
        return False
    share = seconds / (seconds + usual_seconds)
    total = count + usual
    tail = sum(
        math.exp(
            math.lgamma(total + 1)
            - math.lgamma(number + 1)
            - math.lgamma(total - number + 1)
            + number * math.log(share)
            + (total - number) * math.log1p(-share)
        )
        for number in range(count, total + 1)
    )
    return tail < CHANCE


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median slope over all pairs of points, values a second (Sen 1968); 0 when all times are alike."""
    slopes = [
        (values[j] - values[i]) / (times[j] - times[i])
        for i in range(len(times))
        for j in range(i + 1, len(times))
        if times[j] != times[i]
    ]
    return statistics.median(slopes) if slopes else 0.0


def _median(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return float(statistics.median(told)) if told and len(told) == len(values) else None


def _share(blocks: Sequence[Block], figure: Callable[[Block], int | None]) -> float | None:
    """The median share of a block's time that `figure` (microseconds) is; None where a block does not tell it."""
    shares = [
        None if told is None else told / 1e6 / block.seconds
        for block, told in ((each, figure(each)) for each in blocks)
    ]
    known = [share for share in shares if share is not None]
    return statistics.median(known) if known and len(known) == len(shares) else None
