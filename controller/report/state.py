"""`state.json` of a host's dashboard: what it runs, what was kept, and the last runs with every verdict in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from controller.model.run import RunResult
from controller.model.trial import Effect, TrialResult
from controller.report.charts import effect_scale, interval
from controller.report.objectives import goal_words
from controller.report.words import (
    STATUS_WORDS,
    duration_words,
    effect_words,
    evidence_words,
    live_words,
    reason_words,
    time_words,
    value_words,
)


def dashboard_state(
    *,
    fleet: str,
    host: str,
    configuration: str,
    parameters_kept: Mapping[str, object],
    runs: Sequence[RunResult],
    generated_at: str,
) -> str:
    """The document as JSON text: `format fleet host configuration generated_at parameters_kept runs`.

    Fields in `_words`, and `drawn`, are what the page shows as it is: neither template nor script has to know how.

    It travels as an Ansible variable, and Ansible would evaluate `{{ ... }}` in any text of it, such as an error
    message that came from a host. A brace that could begin a template is therefore written as `\\u007b`: the same
    JSON, but no template.

    Args:
        runs: newest first.
        generated_at: UTC, ISO 8601.
    """
    scale = effect_scale([trial.confirmed_effect or trial.effect for run in runs for trial in run.trials])
    document = {
        "format": 1,
        "fleet": fleet,
        "host": host,
        "configuration": configuration,
        "generated_at": generated_at,
        "generated_words": time_words(generated_at),
        "parameters_kept": dict(parameters_kept),
        "parameters_words": _parameters(parameters_kept),
        "runs": [_run(run, host, scale) for run in runs],
    }
    return _without_templates(document)


def _run(run: RunResult, host: str, scale: float) -> dict[str, Any]:
    before, after = run.baseline_before.get(host, ""), run.baseline_after.get(host, "")
    kept = sum(1 for trial in run.trials if trial.verdict == "KEEP")
    return {
        "run_id": run.run_id,
        "status": run.status,
        "status_words": "" if run.status == "completed" else STATUS_WORDS[run.status],
        "summary_words": f"{kept} of {len(run.trials)} kept" if run.trials else "nothing was measured",
        "started_at": run.started_at,
        "started_words": time_words(run.started_at),
        "seconds": run.seconds,
        "took_words": duration_words(run.seconds),
        "seed": run.seed,
        "message": run.message,
        "before": before,
        "after": after,
        "change_words": f"{before or 'unknown'}, unchanged" if before == after else f"{before} → {after}",
        "trials": [_trial(trial, scale) for trial in run.trials],
    }


def _trial(trial: TrialResult, scale: float) -> dict[str, Any]:
    effect = trial.confirmed_effect or trial.effect
    return {
        "trial": trial.trial,
        "experiment": trial.experiment,
        "variant": trial.variant,
        "name": f"{trial.experiment}/{trial.variant}",
        "hosts": trial.hosts,
        "verdict": trial.verdict,
        "reason": trial.reason,
        "reason_words": reason_words(trial),
        "objective": trial.objective,
        "design": trial.design,
        "effect": None if effect is None else effect.model_dump(),
        "effect_confirmed": trial.confirmed_effect is not None,
        "effect_words": effect_words(effect, trial.objective),
        "drawn": None if effect is None else _drawn(effect, scale),
        "evidence_words": evidence_words(trial.evidence, trial.threshold),
        "goals_words": goal_words(trial.goals),
        "live_words": live_words(trial),
        "pairs": trial.pairs,
        "requests": trial.requests,
        "errors": trial.errors,
        "seconds": trial.seconds,
        "parameters": dict(trial.parameters),
        "sets_words": ", ".join(_parameters(trial.parameters)),
    }


def _drawn(effect: Effect, scale: float) -> dict[str, Any]:
    """Where the page draws the effect, on the one axis that all effects of the page share."""
    drawn = interval(effect, scale)
    end = f"{scale * 100:g} %"
    return {
        "low": f"{drawn.low:g}",
        "at": f"{drawn.at:g}",
        "high": f"{drawn.high:g}",
        "worse_words": f"{end} worse",
        "better_words": f"{end} better",
    }


def _parameters(parameters: Mapping[str, object]) -> list[str]:
    return [f"{name}: {value_words(value)}" for name, value in parameters.items()]


def _without_templates(document: dict[str, Any]) -> str:
    """JSON in which `{{`, `{%` and `{#` occur nowhere: a brace before one of these can only be inside a string."""
    return re.sub(r"\{(?=[{%#])", r"\\u007b", json.dumps(document, ensure_ascii=False))
