"""Put configurations on the hosts through the playbooks, and take the hosts' own answers as the truth."""

from __future__ import annotations

import threading
from typing import Any

from controller.adapters.ansible import HostOutcome, PlaybookResult, run_playbook
from controller.model.errors import BadInput, HostFailed, RestoreUnverified
from controller.model.experiment import Experiment, ParameterValue, Variant
from controller.model.trial import ReasonCode
from controller.workflow.adopting import tell_adopted
from controller.workflow.context import RunContext
from controller.workflow.hosts import edited_on_baseline, hand_edited, verify_running

BASELINE = "baseline"
CONTROL = "control"
VARIANT = "variant"
# A playbook ends what an earlier controller left of the same one: two at once would end each other.
_PUSHING = threading.Lock()


class Rejected(Exception):
    """A host's nginx refuses the variant; nothing went live."""

    reason: ReasonCode = "rejected-by-nginx"


class SocketsDiffer(Rejected):
    """The trial's design would open and close sockets under users; nothing went live."""

    reason: ReasonCode = "sockets-differ"


def arms_of(
    experiment: Experiment, variant: Variant, control: dict[str, ParameterValue] | None = None
) -> list[dict[str, Any]]:
    """The configurations one push stages: the baseline as the inventory says, and the two arms of the trial.

    `control`: the control's parameters, where it is another than the baseline.
    """
    required: dict[str, ParameterValue] = dict(experiment.requires)
    arms: list[dict[str, Any]] = [{"name": BASELINE, "parameters": {}}]
    if required or control:
        arms.append({"name": CONTROL, "parameters": required | (control or {})})
    arms.append({"name": VARIANT, "parameters": required | variant.parameters})
    return arms


def play(
    context: RunContext, playbook: str, hosts: list[str], variables: dict[str, Any], *, check: bool = False
) -> PlaybookResult:
    """Run a playbook for this run, once more where a host had lost its claim with its power.

    Raises FleetLocked when it came too late for one of the hosts.
    """
    for last in (False, True):
        result = run_playbook(
            context.project,
            context.fleet.name,
            playbook,
            limit=hosts,
            extra_vars=variables | context.claims.variables,
            check=check,
        )
        late = context.claims.refused(result.failures())
        if late:
            raise late
        if last or not context.claims.came_late(result.failures()):
            break
    return result


def push(
    context: RunContext,
    experiment: Experiment,
    variant: Variant,
    *,
    hosts: list[str],
    check: bool = False,
    control: dict[str, ParameterValue] | None = None,
) -> tuple[PlaybookResult, dict[str, dict[str, Any]]]:
    """Stage both arms of a trial with one module call a host.

    Returns the playbook's result and host -> {arm: {"id", "ok", "error", "diff_from_live", ...}}, where the control
    falls back to the baseline when the experiment requires nothing. Raises HostFailed, FleetLocked.
    """
    with _PUSHING:
        context.claims.renew(hosts)
        result = play(context, "push.yml", hosts, {"variant_arms": arms_of(experiment, variant, control)}, check=check)
    staged: dict[str, dict[str, Any]] = {}
    for host, outcome in result.hosts.items():
        document = outcome.document
        if document is not None and "configurations" in document:
            configurations = dict(document["configurations"])
            configurations.setdefault(CONTROL, configurations.get(BASELINE))
            staged[host] = configurations
    missing = [host for host in hosts if host not in staged]
    if missing:
        result.raise_for_failures()
        raise HostFailed(
            "the push gave no answer",
            where=", ".join(missing),
            next_step="run playbooks/site.yml on it, then run the command again",
        )
    return result, staged


def off_baseline(context: RunContext, confirmed: dict[str, str]) -> dict[str, str]:
    """Of these hosts, who is not on what the inventory renders to; host -> what to do about it. Changes nothing."""
    arms = [{"name": BASELINE, "parameters": {}}]
    result = play(context, "push.yml", sorted(confirmed), {"variant_arms": arms}, check=True)
    problems: dict[str, str] = {}
    for host, configuration in confirmed.items():
        outcome = result.hosts.get(host)
        document = outcome.document if outcome else None
        rendered = ((document or {}).get("configurations") or {}).get(BASELINE, {}).get("id")
        if rendered is None:
            problems[host] = f"the push gave no answer: {outcome.message if outcome else 'never reached'}"
        elif rendered != configuration:
            problems[host] = (
                f"is not on the fleet's baseline (the inventory renders to {rendered}, it has {configuration}); "
                f"ansible-playbook -i inventory/{context.fleet.name} playbooks/commit.yml --limit {host}"
            )
    return problems


def arm_ids(
    staged: dict[str, dict[str, Any]], baseline: dict[str, str], fleet: str
) -> tuple[dict[str, str], dict[str, str]]:
    """(control ids, variant ids) by host.

    Raises:
        Rejected: nginx refuses the variant on some host.
        HostFailed: the inventory does not render to the host's baseline any more, or the control is refused.
    """
    controls: dict[str, str] = {}
    variants: dict[str, str] = {}
    for host, arms in sorted(staged.items()):
        if arms[BASELINE]["id"] != baseline[host]:
            raise HostFailed(
                f"the inventory renders to {arms[BASELINE]['id']}, the host's baseline is {baseline[host]}: "
                "settings were changed but not deployed",
                where=host,
                next_step=f"ansible-playbook -i inventory/{fleet} playbooks/commit.yml (or undo the change)",
            )
        if not arms[CONTROL]["ok"]:
            raise HostFailed(f"nginx refuses the control: {arms[CONTROL].get('error', '')}", where=host)
        if not arms[VARIANT]["ok"]:
            raise Rejected(f"{host}: {arms[VARIANT].get('error', 'nginx -t failed')}")
        controls[host] = arms[CONTROL]["id"]
        variants[host] = arms[VARIANT]["id"]
    return controls, variants


def sockets_differ(staged: dict[str, dict[str, Any]]) -> list[str]:
    """The hosts on which an arm listens on other sockets than the baseline, as `ratchet-host stage` tells."""
    return sorted(
        host
        for host, arms in staged.items()
        if any(arms[arm].get("sockets") != arms[BASELINE].get("sockets") for arm in (CONTROL, VARIANT))
    )


def never_live(staged: dict[str, dict[str, Any]], design: str) -> bool:
    """Whether an arm may not be switched to under users. Raises SocketsDiffer where the design would do so."""
    hosts = sockets_differ(staged)
    if hosts and design != "duet":
        raise SocketsDiffer(
            f"{', '.join(hosts)}: it listens on other sockets than the baseline, and each switch in a {design} "
            "resets users' connections; measure it in a duet (leave `design` and `source` out)"
        )
    return bool(hosts)


def roll_back(context: RunContext, baseline: dict[str, str], *, undo_edits: bool = False) -> None:
    """Run the rollback playbook, then verify over fresh connections.

    A host that runs its baseline already and was edited by hand is left alone, unless `undo_edits`: then an edited main
    file is rendered anew, and told as a notice with where its copy is.

    Raises FleetLocked, RestoreUnverified, and, once every host is back, HandEdited for what somebody has edited.
    """
    context.claims.renew(baseline)
    left_alone = {} if undo_edits else edited_on_baseline(context.fleet, baseline)
    hosts = sorted(set(baseline) - set(left_alone))
    answers: dict[str, HostOutcome] = {}
    if hosts:
        try:
            answers = play(context, "rollback.yml", hosts, {}).hosts
        except BadInput as error:
            raise RestoreUnverified(error.what, where=error.where, next_step=error.next_step) from None
    edited = left_alone | verify_running(context.fleet, {host: baseline[host] for host in hosts})
    failures = {host: outcome.message for host, outcome in answers.items() if outcome.status != "ok"}
    if failures:
        raise RestoreUnverified(
            "the baseline is live, but the rollback playbook reports: "
            + "; ".join(f"{host}: {message}" for host, message in sorted(failures.items())),
            where=", ".join(sorted(failures)),
            next_step=f"controller status --fleet {context.fleet.name}",
        )
    for host, outcome in answers.items():
        document = outcome.document or {}
        tell_adopted(context, host, document)
        if document.get("saved") and not undo_edits:
            edited.setdefault(host, f"the edit is kept as {', '.join(document['saved'])}")
    if edited:
        raise hand_edited(context.fleet.name, edited)


def commit(context: RunContext, parameters: dict[str, ParameterValue], hosts: list[str]) -> dict[str, str]:
    """Confirm the inventory's configuration with `parameters` laid over it; returns host -> the new baseline's id.

    Raises FleetLocked, and HostFailed when any host refuses; the hosts that had taken it must then be committed back
    by the caller.
    """
    context.claims.renew(hosts)
    result = play(context, "commit.yml", hosts, {"variant_parameters": parameters})
    result.raise_for_failures()
    ids: dict[str, str] = {}
    for host in hosts:
        document = result.hosts[host].document if host in result.hosts else None
        if document is None or not document.get("confirmed"):
            raise HostFailed("the commit gave no answer", where=host, next_step="controller status, then run it again")
        ids[host] = str(document["confirmed"])
        tell_adopted(context, host, document)
    return ids
