"""`controller optimize --dry-run`: the plan, the diffs and the duration; nothing is touched."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.syntax import Syntax

from controller.model.experiment import Experiment
from controller.model.run import Budget, Strategy
from controller.report.words import NEVER_LIVE
from controller.workflow.context import RunContext
from controller.workflow.run.dry_run import preview


def print_dry_run(
    context: RunContext, experiments: list[Experiment], seed: int, strategy: Strategy, budget: Budget, *, as_json: bool
) -> int:
    """Print what a run would do. Returns 0, also when nginx would refuse a variant (it says so)."""
    document = preview(context, experiments, seed, strategy, budget)
    if as_json:
        print(json.dumps(document))
        return 0
    console = Console(highlight=False)
    console.print(f"fleet {document['fleet']}: {', '.join(document['hosts'])}; seed {seed}", markup=False)
    for trial in document["trials"]:
        _print_trial(console, trial)
    for search in document["searches"]:
        console.print(f"\nsearch: {search['experiment']}", style="bold", markup=False)
        console.print(f"  {search['question']}", markup=False)
        for name, values in search["ranges"].items():
            console.print(f"  {name}: {values}", markup=False)
    low, high = (document["seconds"][key] / 60 for key in ("shortest", "longest"))
    console.print(f"\nestimated duration: {low:.0f} to {high:.0f} minutes; nothing was changed", markup=False)
    return 0


def _print_trial(console: Console, trial: dict[str, Any]) -> None:
    console.print(f"\ntrial {trial['trial']}: {trial['experiment']}/{trial['variant']}", style="bold", markup=False)
    console.print(f"  {trial['question']}", markup=False)
    console.print(f"  objective: {trial['objective_words']}", markup=False)
    for text, hosts in _same_diffs(trial["diffs"]).items():
        console.print(f"  on {', '.join(hosts)}:", markup=False)
        if text:
            console.print(Syntax(text, "diff", theme="ansi_dark", background_color="default"))
        else:
            console.print("  renders to what is live already", markup=False)
    if trial["sockets_differ"]:
        told = f"its sockets differ, so it is not measured in the design {trial['design']}: leave `design` out"
        told = NEVER_LIVE if trial["design"] == "duet" else told
        console.print(f"  {', '.join(trial['sockets_differ'])}: {told}", style="yellow", markup=False)
    for host, error in trial["refused"].items():
        console.print(f"  {host}: nginx would refuse it: {error}", style="red", markup=False)


def _same_diffs(diffs: dict[str, str]) -> dict[str, list[str]]:
    """Diff -> hosts, so that equal diffs print once."""
    grouped: dict[str, list[str]] = {}
    for host, text in diffs.items():
        grouped.setdefault(text, []).append(host)
    return grouped
