"""What a run would do, from the hosts' own check mode."""

from __future__ import annotations

from typing import Any

from controller.model.experiment import Experiment, ParameterValue, Range
from controller.model.ranges import edges
from controller.model.run import Budget, Strategy
from controller.report.objectives import objective_words
from controller.workflow.context import RunContext
from controller.workflow.fleet.configurations import VARIANT, push, sockets_differ
from controller.workflow.fleet.hosts import check_hosts
from controller.workflow.run.plan import draw_plan
from controller.workflow.trial.plan import estimate_seconds


def preview(
    context: RunContext, experiments: list[Experiment], seed: int, strategy: Strategy, budget: Budget
) -> dict[str, Any]:
    """The plan as a document: hosts, trials with diff per host, searches with their ranges, seconds.

    Reads the hosts, changes nothing.

    Raises HostFailed when a host is not fit.
    """
    check_hosts(context.fleet)
    plan = draw_plan("dry-run", context.fleet, experiments, seed=seed, created_at=context.now(), strategy=strategy)
    trials = []
    for trial in plan.trials:
        _, staged = push(context, trial.experiment, trial.variant, hosts=trial.hosts, check=True)
        trials.append(
            {
                "trial": trial.number,
                "experiment": trial.experiment.name,
                "variant": trial.variant.name,
                "question": trial.experiment.question,
                "objective": trial.experiment.objective.name,
                "objective_words": objective_words(trial.experiment.objective),
                "minimum_effect": trial.experiment.objective.minimum_effect,
                "design": trial.design,
                "sockets_differ": sockets_differ(staged),
                "diffs": {host: arms[VARIANT].get("diff_from_live") or "" for host, arms in sorted(staged.items())},
                "refused": {
                    host: str(arms[VARIANT].get("error", "nginx -t failed"))
                    for host, arms in sorted(staged.items())
                    if not arms[VARIANT]["ok"]
                },
            }
        )
    durations = [estimate_seconds(trial) for trial in plan.trials]
    searches = [experiment for experiment in experiments if experiment.ranges]
    search_seconds = 60 * budget.minutes * len(searches)
    return {
        "fleet": plan.fleet,
        "seed": seed,
        "hosts": plan.hosts,
        "strategy": strategy,
        "trials": trials,
        "searches": [
            {
                "experiment": experiment.name,
                "question": experiment.question,
                "ranges": {name: " to ".join(map(str, _ends(each))) for name, each in experiment.ranges.items()},
            }
            for experiment in searches
        ],
        "seconds": {
            "shortest": sum(low for low, _ in durations),
            "longest": sum(high for _, high in durations) + search_seconds,
        },
    }


def _ends(each: Range) -> list[ParameterValue]:
    """What a reader wants to know of a range: its first and last value."""
    values = edges(each)
    return [values[0], values[-1]]
