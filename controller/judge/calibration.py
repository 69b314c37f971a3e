"""Choose rate, block length and burn-in from control against control: pure, so that `verify` chooses again.

No look at the variant: both arms are the baseline, so nothing that is chosen here can favour a verdict. `propose` is
asked with all that was measured so far, and answers with the next look or with the choice.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.judge.decision import Decision, Outcome, Rule
from controller.judge.effort import pairs_to_keep
from controller.judge.evidence import SignProcess, estimate, log_gain, reduction
from controller.judge.gain import gains, weighted
from controller.judge.rows import Row
from controller.judge.summary import paired_gain
from controller.judge.verdict import Judge
from controller.model.blocks import Block
from controller.model.calibration import BlockLength, Calibration, Look, OpenSetting, Step
from controller.model.designs import DESIGNS, DesignSpec
from controller.model.experiment import GoalsObjective
from controller.model.metrics import METRICS, Metric
from controller.model.trial import Judgement, Pair, TrialPlan

RATES = (5.0, 20.0, 50.0, 100.0, 200.0, 400.0, 800.0)
FIRST_RATE = 20.0
# The first look, a guess from its CPU time, at most one lower, and if that is too fast too, the first rate again.
MOST_STEPS = 4
# What nginx may use of one CPU, both arms together: beyond, queues begin to shape what is measured.
BUSY = 0.6
# A faster rate may not make the median request wait: this much longer, and by more than this.
SLOWER, MATERIAL_US = 1.25, 100.0
SPOILT_SHARE = 1 / 3

# A median of fewer requests says little, and the guardrails' p99 of a block nothing.
LEAST_REQUESTS = 20
# The A/A: this many pairs over all hosts, fewer when requests are rare, so that it stays short.
PAIRS, FEWEST_PAIRS, LEAST_A_HOST = 6, 3, 2
MOST_SECONDS = 8.0
# An experiment that would keep anything is calibrated for this gain.
SMALLEST_EFFECT = 0.01

# Where a burn-in may end, in seconds after the switch, and how far the latency may be off from there on.
BURN_INS = (0.1, 0.2, 0.3, 0.5)
SETTLED = 0.05
# Evidence that control gains over control: what six alike pairs reach in three of a hundred trials.
UNLIKELY = 20.0
_SLICES = 4


@dataclass(frozen=True)
class Measured:
    """One look's evidence. `rows`: host -> its CSV's rows in order; `breach`: the guardrail that ended it, or empty."""

    look: Look
    pairs: Sequence[Pair]
    rows: Mapping[str, Sequence[Row]]
    breach: str = ""


class _AlikeDecision(Decision):
    """Gathers gains; decides nothing."""

    def add(self, gain: float | None, *, spoilt: bool = False) -> Outcome:
        self.pairs += 1
        if gain is not None and not spoilt:
            self.searched.append(gain)
        return Outcome("continue", None, "")


class AlikeJudge(Judge):
    """Watches the guardrails of an A/A: what breaks one here is the host's or the rate's doing."""

    def __init__(self, plan: TrialPlan) -> None:
        super().__init__(plan)
        self._decision = _AlikeDecision(Rule.of(plan))


def judge_alike(plan: TrialPlan, pairs: Iterable[Pair]) -> Judgement:
    """The last judgement of an A/A. Raises ValueError when pairs follow a breach."""
    return AlikeJudge(plan).judge_all(pairs)


def open_settings(plan: TrialPlan) -> list[OpenSetting]:
    """What the experiment leaves to be calibrated; a burn-in alone is not worth an A/A.

    Nothing of live traffic or of saturation, whose load is not the probe's to choose, and nothing where hosts are
    compared with hosts, which one host's noise says little about.
    """
    experiment = plan.experiment
    if not DESIGNS[plan.design].lengths or experiment.source == "live" or experiment.workload.mode == "saturation":
        return []
    timing = experiment.timing
    found: list[OpenSetting] = []
    if experiment.workload.rate is None:
        found.append("rate")
    if timing.block_seconds is None:
        found.append("block_seconds")
    return [*found, "burn_in_seconds"] if found and timing.burn_in_seconds is None else found


def propose(plan: TrialPlan, measured: Sequence[Measured]) -> Look | Calibration:
    """The next look, or the choice.

    Args:
        plan: the trial as it was planned, before any calibration.
        measured: the looks so far, in order.
    """
    steps = _steps(plan, measured)
    rate = plan.experiment.workload.rate
    if rate is not None:
        return _look(plan, 1, rate) if not steps else _choose(plan, measured, steps, rate)
    wanted = _wanted_rate(steps)
    if wanted is not None:
        return _look(plan, len(steps) + 1, wanted, short=not steps)
    return _choose(plan, measured, steps, steps[-1].look.rate)


def _steps(plan: TrialPlan, measured: Sequence[Measured]) -> list[Step]:
    steps: list[Step] = []
    for each in measured:
        steps.append(_step(plan, each, steps[0] if steps else None))
    return steps


def _wanted_rate(steps: Sequence[Step]) -> float | None:
    """The rate of the next look; None when the last one will do."""
    if not steps:
        return FIRST_RATE
    first, last = steps[0], steps[-1]
    if not first.fits:
        return RATES[0] if len(steps) == 1 else None
    if len(steps) > 1 and (last.fits or last.look.rate <= FIRST_RATE):
        return None
    if len(steps) == 1:
        if first.cpu is None or first.cpu <= 0:
            return 100.0
        most = FIRST_RATE * BUSY / first.cpu
        return max(rate for rate in RATES if rate <= max(most, FIRST_RATE))
    if len(steps) + 1 >= MOST_STEPS:
        return FIRST_RATE
    return max(rate for rate in RATES if rate < last.look.rate)


def _look(plan: TrialPlan, number: int, rate: float, *, short: bool = False) -> Look:
    """An A/A at this rate, or a short look at how much there is to gain."""
    fixed = plan.experiment.timing.block_seconds
    block = max(DESIGNS[plan.design].lengths[0], LEAST_REQUESTS / rate) if fixed is None else fixed
    blocks = DESIGNS[plan.design].rounds
    pairs = max(FEWEST_PAIRS, min(PAIRS, math.floor(MOST_SECONDS / (blocks * (block + 0.2)))))
    a_host = max(LEAST_A_HOST, math.ceil(pairs / len(plan.hosts)))
    return Look(number=number, rate=rate, block_seconds=round(block, 3), pairs_per_host=1 if short else a_host)


def _step(plan: TrialPlan, measured: Measured, first: Step | None) -> Step:
    counted = _counted(measured)
    blocks = [block for pair in counted for block in (pair.control, pair.variant)]
    p50 = statistics.median(block.p50_us for block in blocks) if blocks else None
    cpus = [cpu for pair in counted if (cpu := _cpu(pair, DESIGNS[plan.design])) is not None]
    cpu = statistics.median(cpus) if cpus else None
    spoilt = len(measured.pairs) - len(counted)
    note = measured.breach
    if not note and (not counted or spoilt > SPOILT_SHARE * len(measured.pairs)):
        note = f"the probe did not keep its schedule in {spoilt} of {len(measured.pairs)} pairs"
    if not note and plan.experiment.workload.rate is None:
        note = _too_fast(first, p50, cpu)
    return Step(
        look=measured.look,
        sequence=[pair.host for pair in measured.pairs],
        pairs=len(measured.pairs),
        spoilt=spoilt,
        p50_us=p50,
        cpu=None if cpu is None else round(cpu, 4),
        lag_p99_us=statistics.median(block.lag_p99_us for block in blocks) if blocks else None,
        fits=not note,
        note=note,
    )


def _too_fast(first: Step | None, p50: float | None, cpu: float | None) -> str:
    """Why this rate, which nobody asked for, is too much for the host; empty when it is not."""
    if cpu is not None and cpu > BUSY:
        return f"nginx uses {cpu:.0%} of a CPU (at most {BUSY:.0%})"
    usual = first.p50_us if first is not None else None
    if p50 is not None and usual is not None and p50 > max(SLOWER * usual, usual + MATERIAL_US):
        return f"the median request takes {p50:.0f} us, at {FIRST_RATE:g} a second it took {usual:.0f}"
    return ""


def _cpu(pair: Pair, design: DesignSpec) -> float | None:
    """CPUs that nginx used in a pair: a duet's arms run at once."""
    used = [_cpu_of(block) for block in (pair.control, pair.variant)]
    told = [each for each in used if each is not None]
    if len(told) < len(used):
        return None
    return sum(told) if design.at_once else max(told)


def _cpu_of(block: Block) -> float | None:
    each = block.metrics.cpu_us_per_request
    return None if each is None else each * block.achieved_rate / 1e6


def _counted(measured: Measured) -> list[Pair]:
    return [pair for pair in measured.pairs if pair.valid]


# --- the choice -------------------------------------------------------------------------------------------------------


def _choose(plan: TrialPlan, measured: Sequence[Measured], steps: Sequence[Step], rate: float) -> Calibration:
    last, step = measured[-1], steps[-1]
    opened = open_settings(plan)
    seen = _gains(plan, last)
    noise = _noise(plan, last, seen)
    beside = _beside(last)
    burn_in, unsettled = plan.timing.burn_in_seconds, ""
    if "burn_in_seconds" in opened:
        burn_in, unsettled = _burn_in(last)
    block, lengths, hopeless = plan.timing.block_seconds, list[BlockLength](), ""
    if "block_seconds" in opened:
        lengths = _lengths(plan, last.look, noise, burn_in + beside)
        block, hopeless = _shortest(plan, lengths, rate)
    alike, suspicious = _alike(plan, seen)
    few = "" if len(seen) >= FEWEST_PAIRS else "too few pairs to tell the noise"
    wrong = [note for note in (step.note, suspicious, few) if note]
    return Calibration(
        open=opened,
        trial=plan.number,
        hosts=plan.hosts,
        steps=list(steps),
        rate=rate,
        block_seconds=block,
        burn_in_seconds=burn_in,
        noise=None if noise is None else round(math.hypot(*noise), 6),
        noise_between=0.0 if noise is None else round(noise[0], 6),
        alike=alike,
        pair_seconds=round(beside, 3),
        lengths=lengths,
        sound=not wrong,
        note="; ".join([*wrong, *(note for note in (unsettled, hopeless) if note)]),
    )


def _gains(plan: TrialPlan, measured: Measured) -> list[float]:
    weights = _weights(plan)
    told = [gains(pair, weights, plan.design) for pair in _counted(measured)]
    return [weighted(each, weights) for each in told if each.keys() == weights.keys()]


def _weights(plan: TrialPlan) -> dict[Metric, float]:
    """What is to be told apart: one number, or the first of several goals, which comes before all others."""
    objective = plan.experiment.objective
    return {objective.goals[0].metric: 1.0} if isinstance(objective, GoalsObjective) else objective.weights


def _noise(plan: TrialPlan, measured: Measured, seen: Sequence[float]) -> tuple[float, float] | None:
    """Standard deviations (between blocks, within) of a pair's gain; None for too few pairs.

    Longer blocks lessen only the second.

    Control against control: the true gain is zero, so the mean square is the variance, with a degree of freedom more.
    """
    if len(seen) < FEWEST_PAIRS:
        return None
    whole = statistics.fmean(each * each for each in seen)
    metrics = [METRICS[metric] for metric in _weights(plan)]
    if all(metric.at_end for metric in metrics):
        return math.sqrt(whole), 0.0
    parts = _parts(measured) if DESIGNS[plan.design].at_once and all(metric.paired for metric in metrics) else []
    if not parts:
        return 0.0, math.sqrt(whole)
    # The slices' variance around their own block's mean, for a whole block.
    within = statistics.fmean(statistics.variance(each) for each in parts) / _SLICES
    return math.sqrt(max(0.0, whole - within)), math.sqrt(within)


def _parts(measured: Measured) -> list[list[float]]:
    """The paired gains of each pair's quarters."""
    found = []
    for pair in _counted(measured):
        control, variant = (
            [row for row in measured.rows[pair.host] if row.block == block.block and row.intended_us >= 0]
            for block in (pair.control, pair.variant)
        )
        edges = [len(control) * each // _SLICES for each in range(_SLICES + 1)]
        found.append([paired_gain(control[low:high], variant[low:high]) for low, high in itertools.pairwise(edges)])
    return found


def _beside(measured: Measured) -> float:
    """Seconds from the end of a block to the start of the next on the same host: the switch, samples, figures."""
    gaps = []
    for host in measured.rows:
        starts = sorted(
            {(block.started_at, block.seconds) for pair in measured.pairs if pair.host == host
             for block in (pair.control, pair.variant)}
        )  # fmt: skip
        gaps += [later - start - seconds for (start, seconds), (later, _) in itertools.pairwise(starts)]
    return max(0.0, statistics.median(gaps)) if gaps else 0.0


def _burn_in(measured: Measured) -> tuple[float, str]:
    """The earliest end of a burn-in after which latency stays what it is in the block's second half."""
    slices: list[list[float]] = [[] for _ in BURN_INS]
    for host, rows in measured.rows.items():
        blocks = {block.block for pair in _counted(measured) if pair.host == host
                  for block in (pair.control, pair.variant)}  # fmt: skip
        for number, group in itertools.groupby(
            sorted(rows, key=lambda row: (row.block, row.seq)), key=lambda row: row.block
        ):
            if number in blocks:
                _sort_in(list(group), measured.look.block_seconds, slices)
    settled = [_is_settled(each) for each in slices]
    for place, seconds in enumerate(BURN_INS):
        if all(settled[place:]):
            return seconds, ""
    return BURN_INS[-1], f"latency is still settling {BURN_INS[-1]:g} s after a switch"


def _sort_in(rows: Sequence[Row], block_seconds: float, slices: list[list[float]]) -> None:
    """Each request's distance from the typical one of its block's second half, by how long after the switch."""
    half = block_seconds * 5e5
    late = [math.log(max(row.objective_us, 1)) for row in rows if row.intended_us >= half]
    if not late:
        return
    usual = statistics.median(late)
    for row in rows:
        seconds = row.intended_us / 1e6
        for place, (begin, end) in enumerate(itertools.pairwise((*BURN_INS, 2 * BURN_INS[-1]))):
            if begin <= seconds < end:
                slices[place].append(math.log(max(row.objective_us, 1)) - usual)


def _is_settled(distances: Sequence[float]) -> bool:
    """Whether the typical distance is small, or no more than noise; nothing seen speaks for nothing."""
    if len(distances) < LEAST_REQUESTS:
        return True
    noise = 1.2533 * statistics.stdev(distances) / math.sqrt(len(distances))
    return abs(statistics.median(distances)) <= max(SETTLED, 3 * noise)


def _lengths(plan: TrialPlan, look: Look, noise: tuple[float, float] | None, beside: float) -> list[BlockLength]:
    """What each block length would cost, `beside` seconds for each block; nothing when the noise is not known."""
    if noise is None:
        return []
    between, within = noise
    rule = Rule.of(plan)
    wanted = max(rule.least_gain, log_gain(SMALLEST_EFFECT))
    design = DESIGNS[plan.design]
    found = []
    for seconds in sorted({round(max(each, LEAST_REQUESTS / look.rate), 3) for each in design.lengths}):
        expected = math.hypot(between, within * math.sqrt(look.block_seconds / seconds))
        pairs = pairs_to_keep(wanted, expected, rule)
        ends = math.isfinite(pairs)
        found.append(
            BlockLength(
                block_seconds=seconds,
                noise=round(expected, 6),
                pairs=round(pairs, 1) if ends else None,
                seconds=round(pairs * design.rounds * (seconds + beside), 1) if ends else None,
            )
        )
    return found


def _shortest(plan: TrialPlan, lengths: Sequence[BlockLength], rate: float) -> tuple[float, str]:
    """The length that decides soonest, and a note when none decides within the pair limit."""
    within = {
        each.block_seconds: each.seconds
        for each in lengths
        if each.pairs is not None and each.seconds is not None and each.pairs <= plan.timing.planned_pairs
    }
    if within:
        return min(within, key=lambda length: within[length]), ""
    usual = max(plan.timing.block_seconds, round(LEAST_REQUESTS / rate, 3))
    if not lengths:
        return usual, ""
    return usual, "a gain of the minimum effect would drown in the noise; give timing.maximum_pairs more pairs"


def _alike(plan: TrialPlan, seen: Sequence[float]) -> tuple[float | None, str]:
    """(typical gain of control over control, what is wrong with it)."""
    if not seen:
        return None, ""
    typical = reduction(estimate(seen))
    for sign in (1.0, -1.0):
        process = SignProcess()
        for each in seen:
            process.add(sign * each)
        if process.value >= UNLIKELY and abs(typical) >= plan.experiment.objective.minimum_effect:
            return typical, f"control differs from itself by {typical:+.1%}: something on this host breaks the symmetry"
    return typical, ""
