"""Put a fleet back: to its confirmed baseline, or to the baseline of an earlier run."""

from __future__ import annotations

from typing import Any

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.kept import kept_file, read_kept_text
from controller.adapters.files.runs import read_run
from controller.model.errors import BadInput, FleetLocked, HandEdited, HostFailed, RatchetError, RestoreUnverified
from controller.model.events import Notice, StepStarted
from controller.workflow.context import RunContext
from controller.workflow.hosts import on_each_host, read_status, verify_baseline
from controller.workflow.staging import commit, roll_back


def roll_back_to_baseline(context: RunContext) -> dict[str, str]:
    """Make every host's confirmed configuration live again and verify it; returns host -> id."""
    statuses, failures = on_each_host(context.fleet.hosts, read_status)
    baseline = {host: str(status["confirmed"]) for host, status in statuses.items() if status.get("confirmed")}
    context.observer(StepStarted(text="rolling back to the confirmed baseline"))
    if baseline:
        try:
            roll_back(context, baseline, undo_edits=True)
        except HandEdited as error:
            context.account("rollback", sorted(baseline), f"to the confirmed baseline; {error.what}", {})
            raise
        context.account("rollback", sorted(baseline), "to the confirmed baseline", {"baseline": baseline})
    missing = {host.name for host in context.fleet.hosts} - set(baseline)
    if missing:
        reasons = "; ".join(f"{host}: {error.what}" for host, error in sorted(failures.items()))
        raise RestoreUnverified(
            f"not rolled back: {reasons or 'no confirmed baseline'}",
            where=", ".join(sorted(missing)),
            next_step="make the host reachable, then run the command again; its lease restores it meanwhile",
        )
    return baseline


def roll_back_to_run(context: RunContext, reference: str, *, before: bool) -> dict[str, str]:
    """Give the fleet the kept parameters that a run left (or, with `before`, found) and commit them everywhere.

    Raises BadInput for an unknown run or another fleet's, HostFailed when a host refuses (nothing is changed then),
    FleetLocked when one is another run's by now.
    """
    plan, result = read_run(context.project, reference)
    if plan.fleet != context.fleet.name:
        raise BadInput(
            f"run {plan.run_id} was on fleet {plan.fleet}",
            next_step=f"controller history --fleet {context.fleet.name}",
        )
    source = context.run_directory(plan.run_id) / ("kept.before.yml" if before else "kept.after.yml")
    if not source.is_file():
        raise BadInput("the run was never sealed", where=plan.run_id, next_step=f"controller resume {plan.run_id}")
    wanted: dict[str, str] = {}
    if result is not None:
        wanted = result.baseline_before if before else result.baseline_after
    path = kept_file(context.project, context.fleet.name)
    current = read_kept_text(context.project, context.fleet.name)
    context.observer(StepStarted(text=f"committing the parameters {'before' if before else 'of'} run {plan.run_id}"))
    write_atomically(path, source.read_text())
    hosts = [host.name for host in context.fleet.hosts]
    try:
        confirmed = commit(context, {}, hosts)
    except FleetLocked:
        write_atomically(path, current)
        ours = context.claims.still_ours(hosts)
        if ours:
            commit(context, {}, ours)
        raise
    except RatchetError as error:
        write_atomically(path, current)
        commit(context, {}, hosts)
        raise HostFailed(error.what, where=error.where, next_step=error.next_step) from None
    verify_baseline(context.fleet, confirmed)
    _record(context, confirmed, plan.run_id)
    why = f"to the parameters {'before' if before else 'after'} run {plan.run_id}"
    context.account("rollback", hosts, why, {"run": plan.run_id, "baseline": confirmed})
    for host, configuration in confirmed.items():
        if host in wanted and wanted[host] != configuration:
            text = f"now on {configuration}, not {wanted[host]}: other settings of the inventory changed since that run"
            context.observer(Notice(level="warning", host=host, text=text))
    return confirmed


def _record(context: RunContext, confirmed: dict[str, str], run_id: str) -> None:
    values: dict[str, Any] = {"fleet": context.fleet.name, "run_id": run_id, "recorded_at": context.now()}
    for host, configuration in confirmed.items():
        context.store.record_baseline(host=host, configuration=configuration, **values)
