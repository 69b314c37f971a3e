"""What the probe of one host is told, and how long what it is told takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from controller.judge.schedule import draw_groups, planned_pairs
from controller.model.blocks import LIMITS, Arm
from controller.model.designs import DESIGNS
from controller.model.experiment import Experiment
from controller.model.trial import TrialPlan

# Measured on lab hosts: a switch takes 0.1 to 0.2 s, a slow one under load up to 0.5 s.
SWITCH_SECONDS = 0.3
# All hosts begin a period together: this long a slow switch and the hashing of bodies may take.
FLEET_SWITCH_SECONDS = 1.0
# Where a rate means nothing, and none was calibrated: live traffic, and the live check of what was saturated.
UNASKED_RATE = 20.0
# What nothing unconfirmed is ever live for longer than, in one go.
LONGEST_BOUND = 3600
# What the agent reckons with beside a block's requests.
SETTLING_SECONDS = 5.0
# What a healthy agent may take beyond the block itself: switch, slow requests, hashing bodies.
SLACK_SECONDS = 25.0


def pair_seconds(plan: TrialPlan) -> float:
    """Expected wall time of one pair: a duet's two blocks run at once, and a soak has one block for a pair."""
    timing = plan.timing
    design = DESIGNS[plan.design]
    switch = FLEET_SWITCH_SECONDS if design.between_hosts else SWITCH_SECONDS
    one = timing.block_seconds + timing.burn_in_seconds + switch + log_seconds(plan.experiment)
    return design.rounds * one


def pairs_at_once(plan: TrialPlan) -> int:
    """How many pairs count towards the limit while each host measures one: the fleet's are one together."""
    return 1 if DESIGNS[plan.design].between_hosts else len(plan.hosts)


def log_seconds(experiment: Experiment) -> float:
    """How long the agent waits after a block of live traffic until its slowest request must be in nginx's log."""
    return experiment.workload.timeout_ms / 1000 + LIMITS.log_flush_seconds if experiment.source == "live" else 0.0


def patience_seconds(plan: TrialPlan) -> float:
    """How long an agent may be silent."""
    timing = plan.timing
    return timing.block_seconds + timing.burn_in_seconds + log_seconds(plan.experiment) + SLACK_SECONDS


def bound_seconds(plan: TrialPlan, lease_seconds: int, *, on_baseline: bool) -> int:
    """How long a trial may leave live what is not confirmed, in one go; the host's lease is not renewed beyond it.

    Args:
        on_baseline: whether the control is the host's baseline, so that its blocks end what is not confirmed.
    """
    if not on_baseline:
        return LONGEST_BOUND
    timing, timeout = plan.timing, plan.experiment.workload.timeout_ms / 1000
    block = timing.block_seconds + timing.burn_in_seconds + timeout + log_seconds(plan.experiment)
    if plan.design == "soak":
        seconds = timing.planned_pairs * (block + 1.0) + SLACK_SECONDS
    else:
        # The variant ends a pair and begins the next; the lease begins anew only after control's block.
        seconds = 3 * (block + SETTLING_SECONDS) + (pair_seconds(plan) if plan.design == "fleet" else 0.0)
    return min(LONGEST_BOUND, math.ceil(seconds) + 2 * lease_seconds)


def agent_plan(
    plan: TrialPlan,
    run_id: str,
    host: str,
    lease_seconds: int,
    *,
    claim: dict[str, Any] | None = None,
    baseline: str | None = None,
) -> dict[str, Any]:
    """The document that `ratchet-agent run` reads (docs/architecture.md). `baseline`: the host's, where it is known."""
    timing = plan.timing
    count = timing.planned_pairs
    pairs: Sequence[tuple[Arm, ...]] = planned_pairs(plan.design, plan.seed, plan.number, host, count)
    if plan.design == "fleet":
        groups = draw_groups(plan.seed, plan.number, plan.hosts, count)
        pairs = [("control", "variant" if host in group else "control") for group in groups]
    workload = plan.experiment.workload.model_dump(mode="json")
    if workload["rate"] is None:
        workload["rate"] = UNASKED_RATE
    return {
        "format": 1,
        "run": run_id,
        "trial": plan.number,
        "host": host,
        "design": plan.design,
        "workload": workload,
        "arms": {"control": plan.control_ids[host], "variant": plan.variant_ids[host]},
        "block_seconds": timing.block_seconds,
        "burn_in_seconds": timing.burn_in_seconds,
        "lease_seconds": lease_seconds,
        "bound_seconds": bound_seconds(plan, lease_seconds, on_baseline=plan.control_ids[host] == baseline),
        "claim": claim,
        "pairs": [list(pair) for pair in pairs],
        "pair_seconds": pair_seconds(plan) if plan.design == "fleet" else 0,
        "seed": plan.seed,
        "body_sample": 1,
        "source": plan.experiment.source,
        "minimum_requests": plan.experiment.minimum_requests,
        "limits": LIMITS.model_dump(),
    }
