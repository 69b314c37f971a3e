"""What a run will do, fixed before the first measurement."""

from __future__ import annotations

import hashlib
import math

from controller import __version__
from controller.judge.calibration import open_settings
from controller.judge.decision import Rule
from controller.model.errors import BadInput
from controller.model.experiment import CHANGES_SOCKETS, Design, Experiment, Variant
from controller.model.fleet import Fleet
from controller.model.run import Budget, RunPlan, Strategy
from controller.model.trial import TrialPlan, TrialTiming
from controller.workflow.probing import pair_seconds, pairs_at_once

# Everything of a trial but its pairs: push, pulling the evidence, rollback or commit, verification.
TRIAL_OVERHEAD_SECONDS = 10.0
# Control against control, where an experiment leaves something open.
CALIBRATION_SECONDS = 6.0


def new_run_id(now: str, entropy: int) -> str:
    """`r-20261123-201500-3fa9`: sorts by time, short enough to type."""
    stamp = now.replace("-", "").replace(":", "").replace("T", "-").rstrip("Z")
    return f"r-{stamp}-{hashlib.sha256(str(entropy).encode()).hexdigest()[:4]}"


# What this changes shows only under the live instance's own load.
LIVE_ONLY = frozenset({"nginx_worker_cpu_affinity"})


def design_of(experiment: Experiment, variant: Variant) -> Design:
    """The design that the experiment names, else a duet wherever traffic and the variant's parameters allow one.

    Only an experiment that says switchback saturates the live instance. What changes sockets is never
    switched under users.
    """
    if experiment.design != "auto":
        return experiment.design
    if experiment.workload.mode == "saturation":
        return "duet"
    if experiment.source == "live":
        return "switchback"
    if CHANGES_SOCKETS & {*variant.parameters, *experiment.requires}:
        return "duet"
    return "switchback" if LIVE_ONLY & variant.parameters.keys() else "duet"


# Two hosts give one coin a period; a host alone has nobody to be compared with.
LEAST_FLEET = 2


def _trial(
    number: int, experiment: Experiment, variant: Variant, *, fleet: Fleet, hosts: list[str], seed: int, variants: int
) -> TrialPlan:
    design = design_of(experiment, variant)
    return TrialPlan(
        number=number,
        experiment=experiment,
        variant=variant,
        design=design,
        timing=TrialTiming.of(experiment.timing, design, experiment.source),
        hosts=hosts,
        seed=seed,
        alpha=fleet.settings.trials.alpha,
        variants_in_run=variants,
        soak_seconds=fleet.settings.trials.soak_seconds,
    )


def trial_hosts(fleet: Fleet) -> list[str]:
    """The hosts that measure: the fleet's first few, or all."""
    names = [host.name for host in fleet.hosts]
    return names[: fleet.settings.trials.hosts] if fleet.settings.trials.hosts else names


def searched_trial(
    fleet: Fleet, number: int, experiment: Experiment, variant: Variant, *, seed: int, variants: int
) -> TrialPlan:
    """The plan of a trial that a search came up with; `variants`: how many may be proven in the run."""
    return _trial(number, experiment, variant, fleet=fleet, hosts=trial_hosts(fleet), seed=seed, variants=variants)


def check_fleet_design(fleet: Fleet, experiments: list[Experiment], strategy: Strategy) -> None:
    """Raises BadInput where the fleet design cannot be measured."""
    for experiment in experiments:
        if experiment.design != "fleet":
            continue
        if strategy != "first-winner":
            raise BadInput(
                f"experiment {experiment.name} compares hosts with hosts: not for --strategy {strategy}",
                next_step="--strategy first-winner",
            )
        hosts = len(trial_hosts(fleet))
        if hosts < LEAST_FLEET:
            raise BadInput(
                f"experiment {experiment.name} compares hosts with hosts, and {hosts} would measure: the fleet design "
                f"needs at least {LEAST_FLEET}, whose groups are drawn anew each period (a single period could prove "
                "nothing with fewer than 8: 1 in 70 ways to split them)",
                next_step="add hosts, raise trials.hosts, or leave `design` out",
            )


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
    names = [host.name for host in fleet.hosts]
    hosts = trial_hosts(fleet)
    variants = [(experiment, variant) for experiment in experiments for variant in experiment.variants]
    return RunPlan(
        run_id=run_id,
        fleet=fleet.name,
        seed=seed,
        created_at=created_at,
        ratchet_version=__version__,
        hosts=names,
        lease_seconds=fleet.settings.trials.lease_seconds,
        alpha=fleet.settings.trials.alpha,
        strategy=strategy,
        budget=budget or Budget(),
        trials=[
            _trial(number, experiment, variant, fleet=fleet, hosts=hosts, seed=seed, variants=len(variants))
            for number, (experiment, variant) in enumerate(variants, 1)
        ],
    )


def estimate_seconds(plan: TrialPlan) -> tuple[float, float]:
    """(shortest, longest) wall time of a trial in seconds: the fewest pairs that can decide, and the pair limit."""
    timing = plan.timing
    fewest = Rule.of(plan).fewest_pairs + timing.confirm_pairs
    one = pair_seconds(plan)
    hosts = pairs_at_once(plan)
    beside = TRIAL_OVERHEAD_SECONDS + (CALIBRATION_SECONDS if open_settings(plan) else 0.0)
    return (
        math.ceil(fewest / hosts) * one + beside,
        math.ceil(timing.planned_pairs / hosts) * one + beside,
    )
