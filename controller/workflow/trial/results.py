"""A trial's result, from what was judged and the pairs that it was judged by."""

from __future__ import annotations

from collections.abc import Sequence

from controller.model.trial import Judgement, Pair, ProbeDesign, ReasonCode, TrialPlan, TrialResult


def trial_result(
    trial: TrialPlan,
    judgement: Judgement | None,
    pairs: Sequence[Pair],
    *,
    reason: ReasonCode,
    note: str,
    seconds: float,
) -> TrialResult:
    """The result of a trial that no stint, host or opponent is named in yet.

    Args:
        judgement: of the CSVs; None when nothing could be judged.
        pairs: what it was judged by.
        seconds: of the whole trial.
    """
    blocks = [block for pair in pairs for block in (pair.control, pair.variant)]
    kept = reason == "proven-gain" and judgement is not None and judgement.action == "keep"
    return TrialResult(
        trial=trial.number,
        experiment=trial.experiment.name,
        variant=trial.variant.name,
        hosts=trial.hosts,
        verdict="KEEP" if kept else "REVERT",
        reason=reason,
        note=note,
        objective=(judgement.goal if judgement else "") or trial.experiment.objective.name,
        design=trial.design,
        sockets_differ=trial.sockets_differ,
        effect=judgement.effect if judgement else None,
        confirmed_effect=judgement.confirmed_effect if judgement else None,
        goals=judgement.goals if judgement else [],
        evidence=judgement.evidence if judgement else 0.0,
        threshold=judgement.threshold if judgement else 0.0,
        pairs=len(pairs),
        requests=sum(block.requests for block in blocks),
        errors=sum(block.errors for block in blocks),
        seconds=round(seconds, 3),
        probing_seconds=round(probing_seconds(trial.design, pairs), 3),
        parameters=dict(trial.variant.parameters),
    )


def probing_seconds(design: ProbeDesign, pairs: Sequence[Pair]) -> float:
    """Seconds of probing on the host that probed longest; a duet's two blocks run at once."""
    by_host: dict[str, float] = {}
    for pair in pairs:
        both = (pair.control.seconds, pair.variant.seconds)
        by_host[pair.host] = by_host.get(pair.host, 0.0) + (max(both) if design == "duet" else sum(both))
    return max(by_host.values(), default=0.0)
