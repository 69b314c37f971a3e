"""Put a fleet back: to its confirmed baseline, or to the baseline of an earlier run."""

from __future__ import annotations

from typing import Any

from controller.adapters.files.group_vars import group_vars_of_all
from controller.adapters.files.kept import read_kept_text
from controller.adapters.files.runs import read_run
from controller.model.commit import Commit
from controller.model.errors import BadInput, RestoreUnverified
from controller.model.events import Notice, StepStarted
from controller.workflow.context import RunContext
from controller.workflow.fleet.committing import carry_out
from controller.workflow.fleet.configurations import roll_back, stage_again, tell_undeployed
from controller.workflow.fleet.hosts import on_each_host, read_status
from controller.workflow.fleet.open_commits import finish_open, supersede


def roll_back_to_baseline(context: RunContext) -> dict[str, str]:
    """Make every host's baseline live again and verify it; returns host -> id.

    A commit that was broken off is finished first, as it is recorded. A baseline that was confirmed outside of any
    run stays, and is told.
    """
    doubt = finish_open(context)
    statuses, failures = on_each_host(context.fleet.hosts, read_status)
    baseline = {host: str(status["confirmed"]) for host, status in statuses.items() if status.get("confirmed")}
    recorded = context.store.baselines(context.fleet.name)
    for host, configuration in sorted(baseline.items()):
        if host in recorded and recorded[host].configuration != configuration and host not in doubt:
            text = (
                f"its baseline {configuration} was confirmed outside a run (recorded is "
                f"{recorded[host].configuration}); it stays. For the recorded one: ansible-playbook -i "
                f"inventory/{context.fleet.name} playbooks/rollback.yml --limit {host} "
                f"-e variant_to={recorded[host].configuration}"
            )
            context.observer(Notice(level="warning", host=host, text=text))
    context.observer(StepStarted(text="rolling back to the confirmed baseline"))
    if baseline:
        roll_back(context, baseline, undo_edits=True)
    reasons = dict.fromkeys((host.name for host in context.fleet.hosts), "no confirmed baseline")
    reasons |= {host: error.what for host, error in failures.items()} | doubt
    missing = ({host.name for host in context.fleet.hosts} - set(baseline)) | set(doubt)
    if missing:
        raise RestoreUnverified(
            "not rolled back: " + "; ".join(f"{host}: {reasons[host]}" for host in sorted(missing)),
            where=", ".join(sorted(missing)),
            next_step="make the host reachable, then run the command again; its lease restores it meanwhile",
        )
    return baseline


def roll_back_to_run(context: RunContext, reference: str, *, work_id: str, before: bool) -> dict[str, str]:
    """Make the configurations that a run left (or, with `before`, found) the baseline everywhere, and the parameters
    that it kept the fleet's; returns host -> id.

    A host that cannot be reached follows when it is back: whatever command comes next finishes it.

    Raises BadInput for an unknown run, another fleet's, or one whose configurations are gone from a host; HostFailed
    when a host refuses (nothing is changed then); Interrupted before any host has confirmed it; RestoreUnverified
    naming hosts that have not followed yet; FleetLocked when one is another run's by now.
    """
    plan, result = read_run(context.project, reference)
    if plan.fleet != context.fleet.name:
        raise BadInput(
            f"run {plan.run_id} was on fleet {plan.fleet}",
            next_step=f"controller history --fleet {context.fleet.name}",
        )
    source = context.run_directory(plan.run_id) / ("kept.before.yml" if before else "kept.after.yml")
    if result is None or not source.is_file():
        raise BadInput(
            "the run was never sealed", where=plan.run_id, next_step=f"controller resume {plan.run_id}, or controller "
            f"end {plan.run_id}",
        )  # fmt: skip
    # What the run kept is written there: not found out once hosts have changed.
    group_vars_of_all(context.project, context.fleet.name)
    finish_open(context, undoing=True)
    which = f"{'before' if before else 'after'} run {plan.run_id}"
    of_run = result.baseline_before if before else result.baseline_after
    statuses, failures = on_each_host(context.fleet.hosts, read_status)
    recorded = context.store.baselines(context.fleet.name)
    now = {name: str(status["confirmed"]) for name, status in statuses.items() if status.get("confirmed")}
    now |= {name: recorded[name].configuration for name in failures if name in recorded}
    wanted = {host: of_run[host] for host in now if host in of_run}
    _check(context, wanted, statuses, source.read_text(), which)
    commit = Commit(
        commit_id=work_id,
        fleet=context.fleet.name,
        run_id=work_id,
        why=f"the rollback to the baseline {which}",
        started_at=context.now(),
        before={host: now[host] for host in wanted},
        after=wanted,
        without_absent=True,
        kept_before=read_kept_text(context.project, context.fleet.name),
        kept_after=source.read_text(),
    )
    context.observer(StepStarted(text=f"committing the parameters {'before' if before else 'of'} run {plan.run_id}"))
    commit, doubt, left = carry_out(context, supersede(context, commit))
    confirmed = {host: commit.after[host] for host in commit.confirmed}
    tell_undeployed(context, confirmed)
    if doubt | left:
        raise RestoreUnverified(
            f"{len(confirmed)} of {len(wanted)} hosts are on the baseline {which}; not yet: "
            + "; ".join(f"{host}: {why}" for host, why in sorted((doubt | left).items())),
            where=", ".join(sorted(doubt | left)),
            next_step=f"make it reachable, then: controller rollback --fleet {context.fleet.name} (it finishes this)",
        )
    return confirmed


def _check(
    context: RunContext, wanted: dict[str, str], statuses: dict[str, dict[str, Any]], kept: str, which: str
) -> None:
    """Every host that answers has its configuration of that run, staged anew where it is gone. Raises BadInput.

    A host that was not part of that run is left as it is, and told.
    """
    for host in context.fleet.hosts:
        if host.name not in wanted:
            text = (
                f"was not part of the fleet {which}, or has no baseline: it is left. For what the inventory says: "
                f"ansible-playbook -i inventory/{context.fleet.name} playbooks/commit.yml --limit {host.name}"
            )
            context.observer(Notice(level="warning", host=host.name, text=text))
    if not wanted:
        raise BadInput(f"no host of the fleet had a baseline {which}", next_step="controller history shows the runs")
    gone = {
        name: wanted[name]
        for name, status in statuses.items()
        if name in wanted and wanted[name] not in status.get("staged", [])
    }
    other = stage_again(context, gone, kept) if gone else {}
    if other:
        raise BadInput(
            f"the configurations {which} are gone from the host, and cannot be made again, because other settings of "
            "the inventory have changed since: "
            + "; ".join(f"{host}: {wanted[host]} was wanted, {found} is rendered" for host, found in other.items()),
            where=", ".join(sorted(other)),
            next_step="put the parameters you want into the inventory, then: "
            f"ansible-playbook -i inventory/{context.fleet.name} playbooks/commit.yml",
        )
