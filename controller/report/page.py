"""`report.html`: one run in full as one file that needs nothing else: no network, no script, no fonts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from controller.judge.gain import gains, weighted
from controller.judge.stints import StintJudge
from controller.judge.verdict import judge_of
from controller.model.designs import DESIGNS
from controller.model.project import bundle
from controller.model.run import RunPlan, RunResult
from controller.model.trial import Pair, TrialPlan, TrialResult
from controller.report import charts
from controller.report.guardrails import guardrail_rows
from controller.report.objectives import goal_words, measure_words, objective_words, pareto_words
from controller.report.words import (
    STATUS_WORDS,
    calibration_words,
    duration_words,
    effect_words,
    evidence_words,
    live_words,
    reason_words,
    soak_words,
    time_words,
    value_words,
)

STYLESHEET = "roles/dashboard/files/ratchet.css"


def report_page(plan: RunPlan, result: RunResult, pairs: Mapping[int, Sequence[Pair]]) -> str:
    """The page as HTML text; the same facts give the same text.

    Args:
        pairs: trial number -> its judged pairs in the order of judging; a trial without evidence is absent.
    """
    planned = {trial.number: trial for trial in plan.trials}
    scale = charts.effect_scale([trial.confirmed_effect or trial.effect for trial in result.trials])
    trials = [
        _trial(planned[trial.trial], trial, pairs.get(trial.trial, ()), scale)
        for trial in result.trials
        if trial.trial in planned
    ]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            plan=plan,
            result=result,
            trials=trials,
            pareto=[pareto_words(each) for each in result.pareto],
            kept=sum(1 for trial in result.trials if trial.verdict == "KEEP"),
            not_started=[trial for trial in plan.trials if trial.number not in {view["number"] for view in trials}],
            status=STATUS_WORDS[result.status],
            duration=duration_words(result.seconds),
            style=_stylesheet(),
            width=charts.WIDTH,
            height=charts.HEIGHT,
            left=charts.LEFT,
            right=charts.WIDTH - charts.RIGHT,
            top=charts.TOP,
            bottom=charts.HEIGHT - charts.BOTTOM,
        )
    )


def _trial(plan: TrialPlan, result: TrialResult, pairs: Sequence[Pair], scale: float) -> dict[str, Any]:
    experiment = plan.experiment
    effect = result.confirmed_effect or result.effect
    first = result.effect if result.confirmed_effect is not None else None
    return {
        "number": result.trial,
        "result": result,
        "experiment": experiment,
        "variant": plan.variant,
        "design": plan.design,
        "timing": plan.timing,
        "measure": measure_words(experiment.objective),
        "objective": objective_words(experiment.objective),
        "goals": goal_words(result.goals),
        "calibration": "" if plan.calibration is None else calibration_words(plan.calibration),
        "reason": reason_words(result, experiment.guardrails),
        "effect": effect_words(effect, result.objective),
        "interval": None if effect is None else charts.interval(effect, scale),
        "first_effect": None if first is None else effect_words(first, result.objective),
        "first_interval": None if first is None else charts.interval(first, scale),
        "evidence": evidence_words(result.evidence, result.threshold),
        "probing": duration_words(result.probing_seconds),
        "duration": duration_words(result.seconds),
        "live": live_words(result),
        "soak": "" if result.soak is None else soak_words(result.soak),
        "guardrails": guardrail_rows(experiment.guardrails, [each for each in pairs if each.variant.arm == "variant"]),
        **_plots(plan, result, pairs),
    }


def _plots(plan: TrialPlan, result: TrialResult, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The drawings of a trial; None for each that its pairs do not give."""
    # A host's own before and after is no gain: the fleet's is of all hosts together.
    told = [None if DESIGNS[plan.design].between_hosts else _gain(plan, result, pair) for pair in pairs]
    hosts = [pair.host for pair in pairs]
    evidence, threshold, fresh = _evidence(plan, result, pairs)
    return {
        "hosts": charts.marker_of(hosts),
        "evidence_plot": charts.evidence_plot(evidence, threshold, hosts, fresh) if evidence else None,
        "gains_plot": charts.gains_plot(told, hosts, fresh) if any(value is not None for value in told) else None,
        "invalid": sum(not pair.valid for pair in pairs),
    }


def _gain(plan: TrialPlan, result: TrialResult, pair: Pair) -> float | None:
    """The pair's gain as the judge takes it, of the goal that the effect is of; None when it does not count."""
    if not pair.valid:
        return None
    weights = plan.experiment.objective.weights
    told = gains(pair, weights, plan.design)
    if told.keys() != weights.keys():
        return None
    return next((told[metric] for metric in told if metric == result.objective), weighted(told, weights))


def _evidence(plan: TrialPlan, result: TrialResult, pairs: Sequence[Pair]) -> tuple[list[float], float, int | None]:
    """(evidence after each pair, threshold, index of the first confirming pair), as the judge tells it."""
    begins: dict[int, bool] = {}
    for stint in result.stints:
        begins[sum(len(each.sequence) for each in result.stints if each.number < stint.number)] = stint.alone
    competing = StintJudge(plan) if begins else None
    judge = competing or judge_of(plan)
    evidence: list[float] = []
    threshold, fresh = 0.0, None
    for index, pair in enumerate(pairs):
        if competing is not None and index in begins:
            competing.begin(alone=begins[index])
        try:
            judgement = judge.add(pair)
        except ValueError:
            return [], 0.0, None
        evidence.append(judgement.evidence)
        threshold = judgement.threshold
        if judgement.action == "confirm" and fresh is None:
            fresh = index + 1
    return evidence, threshold, fresh


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("controller.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(time_words=time_words, value_words=value_words)
    return environment


@cache
def _stylesheet() -> str:
    """The dashboard role's stylesheet: report and dashboard look alike because it is the same file."""
    return (bundle() / STYLESHEET).read_text(encoding="utf-8")
