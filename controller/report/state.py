"""`state.json` of a host's dashboard: what it runs, what was kept, and the last runs with every verdict in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from controller.model.run import RunResult
from controller.model.trial import TrialResult
from controller.report.words import effect_words, evidence_words, live_words, reason_words


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

    It travels as an Ansible variable, and Ansible would evaluate `{{ ... }}` in any text of it, such as an error
    message that came from a host. A brace that could begin a template is therefore written as `\\u007b`: the same
    JSON, but no template.

    Args:
        runs: newest first.
        generated_at: UTC, ISO 8601.
    """
    document = {
        "format": 1,
        "fleet": fleet,
        "host": host,
        "configuration": configuration,
        "generated_at": generated_at,
        "parameters_kept": dict(parameters_kept),
        "runs": [_run(run, host) for run in runs],
    }
    return _without_templates(document)


def _run(run: RunResult, host: str) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "status": run.status,
        "started_at": run.started_at,
        "seconds": run.seconds,
        "seed": run.seed,
        "message": run.message,
        "before": run.baseline_before.get(host, ""),
        "after": run.baseline_after.get(host, ""),
        "trials": [_trial(trial) for trial in run.trials],
    }


def _trial(trial: TrialResult) -> dict[str, Any]:
    effect = trial.confirmed_effect or trial.effect
    return {
        "trial": trial.trial,
        "experiment": trial.experiment,
        "variant": trial.variant,
        "hosts": trial.hosts,
        "verdict": trial.verdict,
        "reason": trial.reason,
        "reason_words": reason_words(trial),
        "objective": trial.objective,
        "effect": None if effect is None else effect.model_dump(),
        "effect_confirmed": trial.confirmed_effect is not None,
        "effect_words": effect_words(effect, trial.objective),
        "evidence_words": evidence_words(trial.evidence, trial.threshold),
        "live_words": "" if trial.live is None else live_words(trial.live, trial.objective),
        "pairs": trial.pairs,
        "requests": trial.requests,
        "errors": trial.errors,
        "seconds": trial.seconds,
        "parameters": dict(trial.parameters),
    }


def _without_templates(document: dict[str, Any]) -> str:
    """JSON in which `{{`, `{%` and `{#` occur nowhere: a brace before one of these can only be inside a string."""
    return re.sub(r"\{(?=[{%#])", r"\\u007b", json.dumps(document, ensure_ascii=False))
