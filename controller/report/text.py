"""Tables for the terminal, readable at 80 and at 120 columns. Cells are plain text: nothing in them is markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.model.commit import Commit
from controller.model.errors import printable
from controller.model.experiment import Experiment
from controller.model.run import RunPlan, RunResult, SearchSummary
from controller.model.trial import TrialPlan, TrialResult
from controller.report.history import UNFINISHED
from controller.report.objectives import goal_words, pareto_words
from controller.report.words import (
    calibration_words,
    commit_words,
    duration_words,
    effect_words,
    evidence_words,
    live_words,
    reason_words,
    soak_words,
    time_words,
    value_words,
)

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


def search_text(search: SearchSummary) -> RenderableType:
    """How a search ended and what each parameter of its winner is worth."""
    lines: list[RenderableType] = [
        Text(
            f"search of {search.experiment}: {search.tried} variants in {search.stints} stints, "
            f"{duration_words(search.seconds)}; {search.stopped}"
        )
    ]
    for each in search.importance:
        loss = each.note or ("" if each.loss is None else f"{each.loss.estimate:+.1%} time without it")
        fate = "kept" if each.kept else "left out"
        lines.append(Text(f"  {each.parameter}: {value_words(each.value)}: {fate}: {loss}"))
    return Group(*lines)


def _effect_cell(trial: TrialResult) -> Text:
    effect = trial.confirmed_effect or trial.effect
    if effect is None:
        return Text("-")
    return Text("\n".join([effect_words(effect, trial.objective).replace(" (", "\n(", 1), *goal_words(trial.goals)]))


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
    notes += [Text(_commit_note(commit, document["fleet"])) for commit in document["open_commits"]]
    title = Text(f"fleet {document['fleet']}: {_count(document['hosts'])}", style="bold")
    return Group(title, table, *notes)


def _commit_note(commit: dict[str, Any], fleet: str) -> str:
    hosts = ", ".join(commit["hosts"]) or "its records"
    what = f"not done yet: {hosts}" if commit["forward"] else "nothing was confirmed, and it goes back"
    return printable(f"{commit['why']} ({commit['run']}) was broken off; {what}. controller rollback --fleet {fleet}")


def _count(hosts: list[dict[str, Any]]) -> str:
    healthy = sum(1 for host in hosts if host["healthy"])
    return f"{healthy} of {len(hosts)} hosts healthy"


def _baseline(host: dict[str, Any]) -> str:
    if not host["confirmed"]:
        return "-"
    return "the same" if host["confirmed"] == host["live"] else str(host["confirmed"])


def _host_notes(host: dict[str, Any]) -> list[str]:
    notes = [printable(str(host["problem"]))] if host["problem"] else []
    if host["recorded"] and host["confirmed"] and host["recorded"] != host["confirmed"]:
        notes.append(f"its baseline was confirmed outside a run (recorded: {host['recorded']})")
    if host.get("inventory") and host["confirmed"] and host["inventory"] != host["confirmed"]:
        notes.append(
            f"the inventory renders to {host['inventory']}, which is not deployed: the next site.yml would change it"
        )
    if host["lease"]:
        notes.append("a trial is under way, or its lease is about to put the baseline back")
    if claim := host.get("claim"):
        notes.append(
            printable(f"claimed by run {claim['run']} of {claim['holder']} for {claim['seconds_left']:.0f} s more")
        )
    if out := host.get("quarantined"):
        notes.append(
            printable(
                f"quarantined by run {out['run_id']} since {out['since']}: {out['why']}; the next run takes it back "
                "when it is healthy and on the fleet's baseline"
            )
        )
    return notes


def history_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The rows of `report.history.history_rows`, newest first: status, duration, what was kept."""
    if not rows:
        return Text("there is no run yet: controller optimize --fleet F")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    table.add_column("fleet", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("took", no_wrap=True, justify="right")
    table.add_column("kept", overflow="fold", min_width=14)
    for row in rows:
        table.add_row(
            Text(row["run_id"]),
            Text(row["fleet"]),
            Text(row["status"], style="" if row["status"] == "completed" else "bold red"),
            Text("-" if row["seconds"] is None else duration_words(row["seconds"])),
            _kept_cell(row),
        )
    notes = [
        Text(f"{row['run_id']} is unfinished: controller resume {row['run_id']}")
        for row in rows
        if row["status"] == UNFINISHED
    ]
    return Group(table, *notes)


def _kept_cell(row: Mapping[str, Any]) -> Text:
    verdicts = row["verdicts"]
    if not verdicts:
        return Text("-")
    kept = [f"{each['experiment']}/{each['variant']}" for each in verdicts if each["verdict"] == "KEEP"]
    count = f"{len(kept)} of {len(verdicts)}"
    return Text(f"{count}: {', '.join(kept)}" if kept else count)


def run_text(plan: RunPlan, result: RunResult | None, commits: Sequence[Commit] = ()) -> RenderableType:
    """One run in full: every trial with its reason, effect, evidence and parameters; or what to type to finish it.

    `commits`: what it has begun to commit, as that stands now; a later command may have finished or ended it.
    """
    if result is None:
        return _unfinished_text(plan)
    head = Text.assemble((f"run {result.run_id}", "bold"), f"  fleet {result.fleet}  {result.status}")
    facts = _facts(
        [
            ("started", f"{time_words(result.started_at)}, took {duration_words(result.seconds)}"),
            ("hosts", ", ".join(plan.hosts)),
            ("seed", f"{result.seed}, alpha {plan.alpha:g}"),
            ("message", printable(result.message)),
            ("report", f"runs/{result.run_id}/report.html"),
            ("check it", f"controller verify {result.run_id}"),
        ]
    )
    planned = {trial.number: trial for trial in plan.trials}
    of_trial = {commit.commit_id.rpartition("/")[2]: commit for commit in commits}
    trials = [
        _trial_text(planned.get(trial.trial), trial, of_trial.pop(str(trial.trial), None)) for trial in result.trials
    ]
    ends: list[RenderableType] = [search_text(search) for search in result.searches]
    ends += [Text(pareto_words(each)) for each in result.pareto]
    ends += [Text(f"{commit.why}: {commit_words(commit)}") for commit in of_trial.values()]
    return Group(head, facts, *trials, *([Text(""), *ends] if ends else []), *_baselines_text(result))


def _unfinished_text(plan: RunPlan) -> RenderableType:
    variants = ", ".join(f"{trial.experiment.name}/{trial.variant.name}" for trial in plan.trials)
    return Group(
        Text.assemble((f"run {plan.run_id}", "bold"), f"  fleet {plan.fleet}  ", ("unfinished", "bold red")),
        _facts(
            [
                ("started", time_words(plan.created_at)),
                ("hosts", ", ".join(plan.hosts)),
                ("seed", f"{plan.seed}, alpha {plan.alpha:g}"),
                ("planned", variants),
            ]
        ),
        Text("It has no verdict yet: it is under way, or its controller was killed."),
        Text(f"To finish it, or to revert it safely: controller resume {plan.run_id}"),
    )


def _trial_text(plan: TrialPlan | None, trial: TrialResult, commit: Commit | None) -> RenderableType:
    guardrails = plan.experiment.guardrails if plan else None
    style = VERDICT_STYLE[trial.verdict]
    reason = reason_words(trial, guardrails)
    shown = trial.confirmed_effect or trial.effect
    effect = "" if shown is None else effect_words(shown, trial.objective)
    first = f"; before confirmation: {effect_words(trial.effect, trial.objective)}" if trial.confirmed_effect else ""
    evidence = f"{evidence_words(trial.evidence, trial.threshold)}, {trial.pairs} pairs, {trial.design}"
    return Group(
        Text(""),
        Text.assemble((trial.verdict, style), (f"  {trial.experiment}/{trial.variant}", "bold")),
        _facts(
            [
                ("question", plan.experiment.question if plan else ""),
                ("why", reason),
                ("note", "" if trial.note.strip() in reason else trial.note.strip()),
                ("effect", effect + first),
                ("goals", "\n".join(goal_words(trial.goals))),
                ("evidence", evidence if trial.pairs else ""),
                ("live", live_words(trial)),
                ("soak", "" if trial.soak is None else soak_words(trial.soak)),
                ("commit", "" if commit is None else commit_words(commit)),
                ("calibrated", "" if plan is None or plan.calibration is None else calibration_words(plan.calibration)),
                ("requests", f"{trial.requests}, {trial.errors} failed" if trial.requests else ""),
                ("took", f"{duration_words(trial.seconds)}, probing {duration_words(trial.probing_seconds)}"),
                ("sets", "\n".join(f"{name}: {value_words(value)}" for name, value in trial.parameters.items())),
            ]
        ),
    )


def _baselines_text(result: RunResult) -> list[RenderableType]:
    hosts = list(dict.fromkeys([*result.baseline_before, *result.baseline_after]))
    if not hosts:
        return []
    rows = []
    for host in hosts:
        before, after = result.baseline_before.get(host, "unknown"), result.baseline_after.get(host, "unknown")
        rows.append((host, f"{before}, unchanged" if before == after else f"{before} -> {after}"))
    return [Text(""), Text("baselines", style="bold"), _facts(rows)]


def _facts(rows: Sequence[tuple[str, str]]) -> RenderableType:
    """Names and values, indented; rows without a value are left out."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value:
            grid.add_row(Text(f"  {name}"), Text(value))
    return grid


def experiments_table(experiments: Sequence[Experiment]) -> RenderableType:
    """One row an experiment: name, question, variants, risk."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("experiment", no_wrap=True)
    table.add_column("question", overflow="fold", ratio=3)
    table.add_column("variants", overflow="fold", ratio=2)
    table.add_column("risk", no_wrap=True)
    for experiment in experiments:
        table.add_row(
            Text(experiment.name),
            Text(experiment.question),
            Text(
                f"ranges of {len(experiment.ranges)} parameters (--strategy bayes)"
                if experiment.ranges
                else ", ".join(variant.name for variant in experiment.variants)
            ),
            Text(experiment.risk.level),
        )
    return table
