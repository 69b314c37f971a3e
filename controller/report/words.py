"""Plain words for numbers and reason codes: the terminal, the report and the dashboard say the same sentences."""

from __future__ import annotations

import json
import math

from controller.model.calibration import Calibration
from controller.model.commit import Commit
from controller.model.errors import printable
from controller.model.experiment import Guardrails
from controller.model.metrics import GUARDRAILS, METRICS
from controller.model.trial import Effect, ReasonCode, SoakCheck, TrialResult

STATUS_WORDS: dict[str, str] = {
    "running": "is under way",
    "completed": "completed",
    "failed": "failed",
    "interrupted": "was interrupted",
    "taken-over": "was taken over by another run",
    "unverified": "could not verify that it restored the baseline",
}

_SENTENCES: dict[str, str] = {
    "proven-gain": "it is proven better, and fresh pairs confirmed it",
    "futile": "a gain that would be worth keeping is implausible",
    "undecided": "the pair limit was reached without proof of a gain",
    "slower": "there is evidence that it makes things worse",
    "trade-off": "it is better in one goal and worse in another, which is yours to choose",
    "not-confirmed": "fresh pairs did not confirm the gain that was seen first",
    "outdone": "another variant of the search did better",
    "worse-live": "it was proven on shadow instances, but the live instance got slower with it",
    "no-difference": "it renders to the configuration that is live already, so there is nothing to measure",
    "sockets-differ": "its sockets differ from the baseline's, and its design would open and close them under users",
    "guardrail-errors": "too many of its requests failed",
    **{guardrail.reason: guardrail.sentence for _, guardrail in GUARDRAILS.values()},
    "guardrail-body": "it answered with other content than the control",
    "guardrail-missing-data": "data is missing, and no data never counts as a pass",
    "guardrail-sample-ratio": "one arm got more of the live requests than chance explains, so they cannot be compared",
    "soak-errors": "requests failed while it was watched live",
    "soak-memory": "nginx's memory grew beyond measure while it was watched live",
    "soak-open-files": "nginx's open files grew beyond measure while it was watched live",
    "soak-error-log": "nginx logged errors while it was watched live",
    "soak-pressure": "the host came under pressure while it was watched live",
    "measurement-invalid": "the evidence is damaged, or does not give the verdict that was reached live",
    "rejected-by-nginx": "nginx refused the configuration",
    "host-failed": "a host failed while it was measured",
    "commit-failed": "it is proven better, but could not be committed on every host",
    "interrupted": "the operator stopped the run",
}
# What a note adds that the sentence cannot know: nginx's own message, the host, the figures that broke a limit.
_NOTE_TELLS_MORE = {
    "measurement-invalid",
    "rejected-by-nginx",
    "host-failed",
    "commit-failed",
    "worse-live",
    "outdone",
    "trade-off",
    "sockets-differ",
}
NOTE_LENGTH = 240
NEVER_LIVE = (
    "its sockets differ, so it was never switched to and fro under users; committing it re-opens the sockets once"
)


def percent(fraction: float) -> str:
    """A fraction as a percentage without its sign: 0.382 is `38.2 %`; whole numbers from 100 % on."""
    value = abs(fraction) * 100
    return f"{value:.1f} %" if value < 100 else f"{value:,.0f} %"


def effect_words(effect: Effect | None, objective: str) -> str:
    """`p50 38.2 % lower (35.1 to 41.0 %)`; the parentheses hold the 95 % interval, in the direction of the estimate."""
    if effect is None:
        return f"{_metric(objective)} not measured"
    lower, middle, upper = effect.low, effect.estimate, effect.high
    metric = METRICS.get(objective)
    if metric is not None and metric.more_is_better:
        lower, middle, upper = (-more_per_second(end) for end in (upper, middle, lower))
    sign = 1 if middle >= 0 else -1
    ends = sorted((sign * lower, sign * upper))
    numbers = [f"{end * 100:.1f}" if abs(end) < 1 else f"{end * 100:.0f}" for end in ends]
    direction = "lower" if sign > 0 else "higher"
    return f"{_metric(objective)} {percent(middle)} {direction} ({numbers[0]} to {numbers[1]} %)"


def more_per_second(reduction: float) -> float:
    """A reduction of the time a request takes as requests a second: 0.2 is a quarter more."""
    return reduction / max(1e-6, 1 - reduction)


def live_words(result: TrialResult) -> str:
    """What the live instance showed after a duet had proven a variant, and whether it agrees with the duet's effect.

    Empty when it was not asked, unless it must not be.
    """
    live = result.live
    if live is None:
        return NEVER_LIVE if result.sockets_differ and result.verdict == "KEEP" else ""
    objective = live.objective or result.objective
    duet = next((goal.confirmed_effect or goal.effect for goal in result.goals if goal.metric == objective), None)
    if objective == result.objective:
        duet = result.confirmed_effect or result.effect
    told = "no harm" if live.passed else "harm"
    pairs = f"{live.pairs} pair{'' if live.pairs == 1 else 's'}"
    text = f"{told} on the live instance: {effect_words(live.effect, objective)} in {pairs}"
    return text if live.effect is None or duet is None else f"{text}; {agreement_words(live.effect, duet)}"


def soak_words(soak: SoakCheck) -> str:
    """What watching the variant alone said before its commit."""
    blocks = f"{len(soak.sequence)} block{'' if len(soak.sequence) == 1 else 's'}"
    return f"{'healthy' if soak.passed else 'harm'} in {soak.seconds:.0f} s alone under load ({blocks})"


def commit_words(commit: Commit) -> str:
    """How far a commit has come by now, whatever its run could tell when it ended."""
    has = f"confirmed on {', '.join(commit.confirmed)}" if commit.confirmed else "no host has confirmed it"
    told = {
        "going-live": "broken off before any host had confirmed it; the next command takes it back",
        "returned": "taken back: no host had confirmed it",
        "superseded": f"{has}; ended, since a later change or somebody else went on from there",
        "done": has,
    }
    words = [told.get(commit.state, f"{has}; not done yet, the next command finishes it")]
    if commit.forward and commit.open:
        words.append(f"waits for {', '.join(commit.open)}")
    words += [f"without {host}: {why}" for host, why in sorted(commit.left.items())]
    return printable("; ".join(words))


def agreement_words(live: Effect, duet: Effect) -> str:
    """How the live instance's interval lies to the duet's: few live pairs are wide, so overlap is not proof."""
    if live.high < duet.low or live.low > duet.high:
        return f"the designs disagree: that is {'less' if live.high < duet.low else 'more'} than the duet shows"
    if live.low > 0:
        return "it agrees with the duet, and is a gain by itself"
    if live.low <= duet.estimate <= live.high:
        return "it agrees with the duet, but is too wide to show a gain by itself"
    return "it overlaps with the duet's interval, but does not hold its estimate"


def calibration_words(found: Calibration) -> str:
    """What was chosen from control against control, and the noise that it was chosen from."""
    noise = "" if found.noise is None else f"; noise {percent(found.noise)} a pair"
    cost = next((each for each in found.lengths if each.block_seconds == found.block_seconds), None)
    hope = ""
    if cost is not None and cost.pairs is not None:
        hope = f", about {cost.pairs:.0f} pairs and {cost.seconds:.0f} s for the minimum effect"
    doubt = f" ({found.note})" if found.note else ""
    pairs = sum(step.pairs for step in found.steps)
    return (
        f"blocks of {found.block_seconds:g} s after {found.burn_in_seconds:g} s at {found.rate:g} requests/s"
        f"{noise} in {pairs} pairs{hope}{doubt}"
    )


def evidence_words(evidence: float, threshold: float) -> str:
    """`143 of 100`: how much evidence for a gain there is, of how much is needed; `-` when nothing was judged."""
    if threshold <= 0:
        return "-"
    return f"{compact(evidence)} of {compact(threshold)}"


def compact(number: float) -> str:
    """At most five characters for what is read at a glance: 0.03, 7.4, 143, 2.1e+09."""
    if number >= 100_000:
        return f"{number:.1e}"
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def reason_words(result: TrialResult, guardrails: Guardrails | None = None) -> str:
    """One sentence that begins with its subject in lower case and has no full stop: why the verdict is what it is.

    Args:
        guardrails: the experiment's limits, so that the sentence can name them; without them it does not.
    """
    return sentence(result.reason, result.note, guardrails)


def sentence(reason: ReasonCode, note: str = "", guardrails: Guardrails | None = None) -> str:
    """`reason_words` for a code and its note."""
    text = _SENTENCES[reason]
    if guardrails is not None:
        text = _with_limits(guardrails).get(reason, text)
    first = printable(note.strip().splitlines()[0].strip()) if note.strip() else ""
    if first and (reason in _NOTE_TELLS_MORE or reason.startswith(("guardrail-", "soak-"))):
        text += ": " + (first if len(first) <= NOTE_LENGTH else first[: NOTE_LENGTH - 3] + "...")
    return text


def _metric(objective: str) -> str:
    if objective in METRICS:
        return METRICS[objective].short
    return "weighted mean" if objective == "weighted" else objective


def _with_limits(guardrails: Guardrails) -> dict[str, str]:
    """The sentences that name the experiment's limit."""
    ratios = {
        guardrail.reason: guardrail.with_limit.format(_times(getattr(guardrails, limit)))
        for limit, (_, guardrail) in GUARDRAILS.items()
    }
    return {"guardrail-errors": f"more than {percent(guardrails.error_rate)} of its requests failed"} | ratios


def _times(ratio: float) -> str:
    return {1.0: "once", 2.0: "twice"}.get(ratio, f"{ratio:g} times")


def duration_words(seconds: float) -> str:
    """`48 s`, `12 min 5 s`, `2 h 3 min`."""
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time_words(stamp: str) -> str:
    """`2026-11-23 20:15 UTC` of an ISO 8601 stamp in UTC; anything else stays as it is."""
    return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp.endswith("Z") and len(stamp) >= 17 else stamp


def value_words(value: object) -> str:
    """A parameter's value as one reads it in YAML: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
