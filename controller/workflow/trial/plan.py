"""What one trial of a run will do: its design, its hosts, its pairs, and how long that takes at least and at most."""

from __future__ import annotations

import math

from controller.judge.calibration import open_settings
from controller.judge.decision import Rule
from controller.model.errors import BadInput
from controller.model.experiment import CHANGES_SOCKETS, Design, Experiment, Variant
from controller.model.fleet import Fleet
from controller.model.run import RunPlan, Strategy
from controller.model.trial import TrialPlan, TrialTiming
from controller.workflow.trial.agent_plan import pair_seconds, pairs_at_once

# Everything of a trial but its pairs: push, pulling the evidence, rollback or commit, verification.
TRIAL_OVERHEAD_SECONDS = 10.0
# Control against control, where an experiment leaves something open.
CALIBRATION_SECONDS = 6.0


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


def planned_trial(plan: RunPlan, number: int, experiment: Experiment, variant: Variant, *, variants: int) -> TrialPlan:
    """A trial of the run; `variants`: how many may be proven in it.

    Its figures are those of the run's plan, also where the settings have changed since.
    """
    design = design_of(experiment, variant)
    return TrialPlan(
        number=number,
        experiment=experiment,
        variant=variant,
        design=design,
        timing=TrialTiming.of(experiment.timing, design, experiment.source),
        hosts=plan.hosts[: plan.hosts_per_trial or None],
        seed=plan.seed,
        alpha=plan.alpha,
        variants_in_run=variants,
        soak_seconds=plan.soak_seconds,
    )


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
        hosts = len(fleet.hosts[: fleet.settings.trials.hosts or None])
        if hosts < LEAST_FLEET:
            raise BadInput(
                f"experiment {experiment.name} compares hosts with hosts, and {hosts} would measure: the fleet design "
                f"needs at least {LEAST_FLEET}, whose groups are drawn anew each period (a single period could prove "
                "nothing with fewer than 8: 1 in 70 ways to split them)",
                next_step="add hosts, raise trials.hosts, or leave `design` out",
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
