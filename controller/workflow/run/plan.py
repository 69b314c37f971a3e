"""What a run will do, fixed before the first measurement."""

from __future__ import annotations

import hashlib

from controller import __version__
from controller.model.experiment import Experiment
from controller.model.fleet import Fleet
from controller.model.run import Budget, RunPlan, Strategy
from controller.workflow.trial.plan import planned_trial


def new_run_id(now: str, entropy: int) -> str:
    """`r-20261123-201500-3fa9`: sorts by time, short enough to type."""
    stamp = now.replace("-", "").replace(":", "").replace("T", "-").rstrip("Z")
    return f"r-{stamp}-{hashlib.sha256(str(entropy).encode()).hexdigest()[:4]}"


def draw_plan(
    run_id: str,
    fleet: Fleet,
    experiments: list[Experiment],
    *,
    seed: int,
    created_at: str,
    strategy: Strategy = "first-winner",
    budget: Budget | None = None,
) -> RunPlan:
    """Lay out the trials: experiments in order, their variants in order, each on the same hosts.

    Ranges have no variants yet: the trials of a search come one by one.
    """
    settings = fleet.settings.trials
    variants = [(experiment, variant) for experiment in experiments for variant in experiment.variants]
    plan = RunPlan(
        run_id=run_id,
        fleet=fleet.name,
        seed=seed,
        created_at=created_at,
        ratchet_version=__version__,
        hosts=[host.name for host in fleet.hosts],
        lease_seconds=settings.lease_seconds,
        alpha=settings.alpha,
        soak_seconds=settings.soak_seconds,
        hosts_per_trial=settings.hosts,
        strategy=strategy,
        budget=budget or Budget(),
        trials=[],
    )
    trials = [
        planned_trial(plan, number, experiment, variant, variants=len(variants))
        for number, (experiment, variant) in enumerate(variants, 1)
    ]
    return plan.model_copy(update={"trials": trials})
