"""Hosts that are broken: named, recorded, left out of the rest of the run, and taken back when they are well again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.model.errors import HandEdited, HostFailed, RatchetError, RestoreUnverified
from controller.model.events import Notice
from controller.model.run import RunPlan, RunResult
from controller.model.steps import GoneOn
from controller.model.trial import TrialPlan, TrialResult
from controller.workflow.context import RunContext
from controller.workflow.fleet.configurations import off_baseline, roll_back

HOST_FAILURES = frozenset({"host-failed", "commit-failed"})


def quarantines(context: RunContext) -> bool:
    """Whether the fleet's settings say to go on without a broken host."""
    return context.fleet.settings.trials.broken_hosts == "quarantine"


def named_hosts(error: RatchetError, hosts: list[str]) -> list[str]:
    """Those of the hosts that an error's `where` names."""
    words = error.where.replace(",", " ").split()
    return [host for host in hosts if host in words]


def leave_out(context: RunContext, run_id: str, why: dict[str, str]) -> None:
    """Record the hosts as quarantined, and say so. Recording the same twice changes nothing."""
    if not why:
        return
    fleet, evidence = context.fleet.name, {"run": run_id, "why": why}
    with context.accounted("quarantine", sorted(why), "leave out of the rest of the run", evidence, always=True):
        for host, reason in sorted(why.items()):
            text = f"quarantined, the run goes on without it: {reason}"
            context.observer(Notice(level="warning", host=host, text=text))
            context.store.quarantine(fleet=fleet, host=host, why=reason, run_id=run_id, since=context.now())


def too_few(context: RunContext, left: dict[str, str]) -> HostFailed | None:
    """The error of a run that fewer than half of the fleet's hosts are left for; None when there are enough."""
    total = len(context.fleet.hosts)
    if 2 * len(left) >= total:
        return None
    return HostFailed(
        f"only {len(left)} of {total} hosts are left; too few to go on",
        where=f"fleet {context.fleet.name}",
        next_step=f"controller status --fleet {context.fleet.name}, then mend what it names",
    )


def take_back(context: RunContext, found: dict[str, str]) -> dict[str, str]:
    """Of the fit hosts, take back those that were quarantined and are on the fleet's baseline.

    Returns host -> why not, for those whose baseline is not what the inventory renders to: commits that they missed.
    """
    absent = {host: found[host] for host in context.store.quarantined(context.fleet.name) if host in found}
    behind = off_baseline(context, absent) if absent else {}
    back = sorted(set(absent) - set(behind))
    if back:
        with context.accounted("release", back, "end the quarantine: healthy and on the fleet's baseline again"):
            for host in back:
                context.store.end_quarantine(fleet=context.fleet.name, host=host)
                text = "healthy and on the fleet's baseline again: its quarantine is over"
                context.observer(Notice(host=host, text=text))
    return behind


def hosts_left(plan: RunPlan, trial: TrialPlan, baseline: dict[str, str]) -> TrialPlan:
    """The trial on the run's first hosts that are left, as many as were planned."""
    left = [host for host in plan.hosts if host in baseline]
    return trial.model_copy(update={"hosts": left[: len(trial.hosts)]})


def put_back(context: RunContext, baseline: dict[str, str], failed: dict[str, str]) -> dict[str, str]:
    """Roll every host back that can be reached; returns host -> why it is left out: `failed`, and who could not be.

    The failed ones are tried too: what cannot be verified there is said beside their failure.
    """
    left_out = dict(failed)
    while rest := {host: baseline[host] for host in baseline if host not in left_out}:
        try:
            roll_back(context, rest)
            break
        except (HandEdited, RestoreUnverified) as error:
            named = named_hosts(error, list(rest))
            if not named:
                raise
            left_out |= dict.fromkeys(named, error.what)
    for host in set(failed) & set(baseline):
        try:
            roll_back(context, {host: baseline[host]})
        except (HandEdited, RestoreUnverified) as error:
            left_out[host] += f"; {error.what}"
    return left_out


def go_on_without(context: RunContext, run_id: str, baseline: dict[str, str], lost: dict[str, str]) -> GoneOn:
    """Leave out what broke in a search (host -> why), and whoever cannot be put back with them.

    Whoever is left is not enough where broken hosts are not quarantined.
    """
    if not quarantines(context) or context.stop.requested:
        return GoneOn(baseline=baseline, enough=False)
    left_out = put_back(context, baseline, {host: why for host, why in lost.items() if host in baseline})
    leave_out(context, run_id, left_out)
    rest = {host: configuration for host, configuration in baseline.items() if host not in left_out}
    return GoneOn(baseline=rest, enough=too_few(context, rest) is None)


def too_many_in_a_row(context: RunContext, results: Sequence[TrialResult]) -> bool:
    """Whether the latest trials, as many as the settings bear, all failed for a host."""
    limit = context.fleet.settings.trials.failures_in_a_row
    latest = [result.reason for result in results[-limit:]]
    return len(latest) == limit and all(reason in HOST_FAILURES for reason in latest)


def _on(baseline: str, status: dict[str, Any] | None) -> bool:
    return (
        status is not None
        and status.get("live") == status.get("confirmed") == baseline
        and status.get("verified", True)
        and not status.get("lease")
    )


def tell_left_out(
    context: RunContext, result: RunResult, left: dict[str, str], statuses: dict[str, dict[str, Any]]
) -> RunResult:
    """The result with its quarantined hosts. One that the run has worked on must be back on its baseline.

    `left`: host -> baseline of the hosts that took part to the end; `statuses`: of the hosts that answer now.
    """
    recorded = context.store.quarantined(context.fleet.name)
    out = {host.name: recorded[host.name].why for host in context.fleet.hosts if host.name in recorded}
    out = {host: why for host, why in out.items() if host not in left}
    if not out:
        return result
    baselines = context.store.baselines(context.fleet.name)
    touched = [host for host in out if host in result.baseline_before]
    # A host that was set up anew since may have none on record.
    unverified = [
        host for host in touched if host not in baselines or not _on(baselines[host].configuration, statuses.get(host))
    ]
    words = [f"{host} is quarantined: {why}" for host, why in out.items()]
    status = result.status
    if unverified:
        status = "unverified"
        words.append(
            f"{', '.join(unverified)}: its baseline could not be verified (its lease restores it)\n"
            f"  next: on the host: sudo ratchet-host rollback; then controller status --fleet {result.fleet}"
        )
    message = "\n".join([*([result.message] if result.message else []), *words])
    return result.model_copy(update={"status": status, "message": message, "quarantined": out})
