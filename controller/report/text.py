"""Tables for the terminal, readable at 80 and at 120 columns. Cells are plain text: nothing in them is markup."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.model.run import RunResult
from controller.model.trial import TrialResult
from controller.report.words import effect_words, evidence_words, reason_words

VERDICT_STYLE = {"KEEP": "bold green", "REVERT": "bold yellow"}


def verdict_table(result: RunResult) -> RenderableType:
    """One row a trial: verdict, variant, effect with its 95 % interval, evidence, and why."""
    if not result.trials:
        return Text("no trial was finished")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("experiment\n  variant", max_width=26, overflow="fold")
    table.add_column("effect\n(95 % interval)", no_wrap=True)
    table.add_column("evidence\npairs", no_wrap=True)
    table.add_column("why", min_width=20, overflow="fold")
    for trial in result.trials:
        table.add_row(
            Text(trial.verdict, style=VERDICT_STYLE[trial.verdict]),
            Text(f"{trial.experiment}\n  {trial.variant}"),
            _effect_cell(trial),
            Text(f"{evidence_words(trial.evidence, trial.threshold)}\n{trial.pairs} pairs" if trial.pairs else "-"),
            Text(reason_words(trial)),
        )
    return table


def _effect_cell(trial: TrialResult) -> Text:
    effect = trial.confirmed_effect or trial.effect
    if effect is None:
        return Text("-")
    return Text(effect_words(effect, trial.objective).replace(" (", "\n(", 1))


def status_table(document: dict[str, Any]) -> RenderableType:
    """The hosts of `workflow.status.fleet_status`, one row each; below it what needs the operator's attention."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("host", no_wrap=True)
    table.add_column("address", overflow="fold")
    table.add_column("health", no_wrap=True)
    table.add_column("live", no_wrap=True)
    table.add_column("baseline", no_wrap=True)
    table.add_column("nginx", no_wrap=True)
    notes: list[Text] = []
    for host in document["hosts"]:
        healthy = bool(host["healthy"])
        table.add_row(
            Text(host["host"]),
            Text(host["address"]),
            Text("ok", style="green") if healthy else Text("PROBLEM", style="bold red"),
            Text(host["live"] or "-"),
            Text(_baseline(host)),
            Text(host["nginx"] or "-"),
        )
        notes += [Text(f"{host['host']}: {note}") for note in _host_notes(host)]
    notes += [Text(f"run {run_id} is unfinished: controller resume {run_id}") for run_id in document["unfinished_runs"]]
    title = Text(f"fleet {document['fleet']}: {_count(document['hosts'])}", style="bold")
    return Group(title, table, *notes)


def _count(hosts: list[dict[str, Any]]) -> str:
    healthy = sum(1 for host in hosts if host["healthy"])
    return f"{healthy} of {len(hosts)} hosts healthy"


def _baseline(host: dict[str, Any]) -> str:
    if not host["confirmed"]:
        return "-"
    return "the same" if host["confirmed"] == host["live"] else str(host["confirmed"])


def _host_notes(host: dict[str, Any]) -> list[str]:
    notes = [str(host["problem"])] if host["problem"] else []
    if host["recorded"] and host["confirmed"] and host["recorded"] != host["confirmed"]:
        notes.append(f"its baseline was confirmed outside a run (recorded: {host['recorded']})")
    if host["lease"]:
        notes.append("a trial is under way, or its lease is about to put the baseline back")
    return notes
