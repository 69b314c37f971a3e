"""What a run would do, from the hosts' own check mode."""

from __future__ import annotations

from typing import Any

from controller.model.experiment import Experiment
from controller.workflow.context import RunContext
from controller.workflow.hosts import check_hosts
from controller.workflow.planning import draw_plan, estimate_seconds
from controller.workflow.staging import VARIANT, push


def preview(context: RunContext, experiments: list[Experiment], seed: int) -> dict[str, Any]:
    """The plan as a document: hosts, trials with diff per host, seconds. Reads the hosts, changes nothing.

    Raises HostFailed when a host is not fit.
    """
    check_hosts(context.fleet)
    plan = draw_plan("dry-run", context.fleet, experiments, seed=seed, created_at=context.now())
    trials = []
    for trial in plan.trials:
        _, staged = push(context, trial.experiment, trial.variant, hosts=trial.hosts, check=True)
        trials.append(
            {
                "trial": trial.number,
                "experiment": trial.experiment.name,
                "variant": trial.variant.name,
                "question": trial.experiment.question,
                "objective": trial.experiment.objective.metric,
                "minimum_effect": trial.experiment.objective.minimum_effect,
                "diffs": {host: arms[VARIANT].get("diff_from_live") or "" for host, arms in sorted(staged.items())},
                "refused": {
                    host: str(arms[VARIANT].get("error", "nginx -t failed"))
                    for host, arms in sorted(staged.items())
                    if not arms[VARIANT]["ok"]
                },
            }
        )
    durations = [estimate_seconds(trial) for trial in plan.trials]
    return {
        "fleet": plan.fleet,
        "seed": seed,
        "hosts": plan.hosts,
        "trials": trials,
        "seconds": {"shortest": sum(low for low, _ in durations), "longest": sum(high for _, high in durations)},
    }
