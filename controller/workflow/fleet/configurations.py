"""Put configurations on the hosts through the playbooks, and take the hosts' own answers as the truth."""

from __future__ import annotations

from typing import Any, NamedTuple

from controller.adapters.ansible import HostOutcome, PlaybookResult, run_playbook
from controller.adapters.files.earlier_fleet import fleet_with_kept
from controller.model.errors import BadInput, HostFailed, RatchetError, RestoreUnverified
from controller.model.events import Notice
from controller.model.experiment import Experiment, ParameterValue, Variant
from controller.model.trial import ReasonCode, TrialPlan
from controller.workflow.context import RunContext
from controller.workflow.fleet.hand_edits import tell_adopted
from controller.workflow.fleet.hosts import edited_on_baseline, hand_edited, on_each_host, read_status, verify_running

BASELINE = "baseline"
CONTROL = "control"
VARIANT = "variant"
# Of a diff that is told in a sentence.
SHOWN_LINES = 6


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
    context: RunContext,
    playbook: str,
    hosts: list[str],
    variables: dict[str, Any],
    *,
    check: bool = False,
    inventory: str = "",
) -> PlaybookResult:
    """Run a playbook for this run, once more where a host had lost its claim with its power.

    `inventory`: another one of the same hosts than the fleet's own.

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
            inventory=inventory,
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


class Undeployed(NamedTuple):
    """What the inventory renders to for a host (None: it gave no answer, `why`), and how that differs from `live`."""

    rendered: str | None
    lines: list[str]
    why: str = ""


def undeployed(context: RunContext, confirmed: dict[str, str]) -> dict[str, Undeployed]:
    """Of these hosts, whom the next deployment would change: what is written is not what is confirmed. Changes nothing.

    Raises BadInput when the inventory cannot be used.
    """
    if not confirmed:
        return {}
    arms = [{"name": BASELINE, "parameters": {}}]
    result = play(context, "push.yml", sorted(confirmed), {"variant_arms": arms}, check=True)
    found: dict[str, Undeployed] = {}
    for host, configuration in sorted(confirmed.items()):
        outcome = result.hosts.get(host)
        arm = (((outcome.document if outcome else None) or {}).get("configurations") or {}).get(BASELINE, {})
        rendered = arm.get("id")
        if rendered is None:
            found[host] = Undeployed(None, [], outcome.message if outcome else "never reached")
        elif rendered != configuration:
            lines = [line for line in str(arm.get("diff_from_live", "")).splitlines() if line[:1] in "+-"]
            found[host] = Undeployed(rendered, [line for line in lines if line[:3] not in {"+++", "---"}])
    return found


def off_baseline(context: RunContext, confirmed: dict[str, str]) -> dict[str, str]:
    """Of these hosts, who is not on what the inventory renders to; host -> what to do about it. Changes nothing."""
    return {
        host: f"the push gave no answer: {found.why}"
        if found.rendered is None
        else f"is not on the fleet's baseline (the inventory renders to {found.rendered}, it has {confirmed[host]}); "
        f"ansible-playbook -i inventory/{context.fleet.name} playbooks/commit.yml --limit {host}"
        for host, found in undeployed(context, confirmed).items()
    }


def tell_undeployed(context: RunContext, confirmed: dict[str, str]) -> None:
    """After a commit: say where what is written is not what was measured and committed, and whose word is wanted."""
    try:
        differing = undeployed(context, confirmed)
    except RatchetError as error:
        context.observer(
            Notice(level="warning", text=f"whether the inventory says what was kept is not known: {error}")
        )
        return
    for host, found in differing.items():
        if found.rendered is None:
            text = f"whether the inventory says what was kept is not known: {found.why}"
        else:
            more = f" (and {len(found.lines) - SHOWN_LINES} more lines)" if len(found.lines) > SHOWN_LINES else ""
            text = (
                f"has {confirmed[host]}, as it was measured, but the inventory renders to {found.rendered} now: "
                f"{'; '.join(line.strip() for line in found.lines[:SHOWN_LINES])}{more}. Somebody has changed settings "
                "and not deployed them, or they stand in a file that beats zz-kept.yml: undo that, or deploy it "
                f"unmeasured: ansible-playbook -i inventory/{context.fleet.name} playbooks/commit.yml --limit {host}"
            )
        context.observer(Notice(level="warning", host=host, text=text))


def stage_everywhere(
    context: RunContext, trial: TrialPlan, baseline: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Host -> the id to commit: what was measured there; on hosts that have not measured, the same laid over theirs.
    And host -> the control's id: the baseline's, unless the experiment requires what the host has not.

    Raises HostFailed when a host's settings were changed and not deployed, or what was measured is not to be had any
    more; Rejected when nginx refuses it on a host that has not measured; FleetLocked.
    """
    wanted = {host: trial.variant_ids[host] for host in baseline if host in trial.variant_ids}
    members = [host for host in context.fleet.hosts if host.name in wanted]
    statuses, _ = on_each_host(members, read_status)
    lost = {host for host, status in statuses.items() if wanted[host] not in status.get("staged", [])}
    missing = sorted(lost | (set(baseline) - set(wanted)))
    controls = {host: trial.control_ids[host] for host in wanted if host in trial.control_ids}
    if not missing:
        return wanted, controls
    _, staged = push(context, trial.experiment, trial.variant, hosts=missing)
    theirs, variants = arm_ids(staged, baseline, context.fleet.name)
    for host in sorted(lost):
        if variants[host] != wanted[host]:
            raise HostFailed(
                f"{wanted[host]}, which was measured, is not on the host any more, and its settings render to "
                f"{variants[host]} now",
                where=host,
                next_step="run the experiment again",
            )
    return wanted | variants, theirs | controls


def stage_again(context: RunContext, wanted: dict[str, str], kept: str) -> dict[str, str]:
    """Stage configurations that these hosts have had: what the inventory renders to with the text of an earlier
    zz-kept.yml. Returns host -> what it renders to instead, where other settings have changed since.

    Raises HostFailed, FleetLocked.
    """
    hosts = sorted(wanted)
    context.claims.renew(hosts)
    with fleet_with_kept(context.project, context.fleet.name, kept) as name:
        result = play(
            context, "push.yml", hosts, {"variant_arms": [{"name": BASELINE, "parameters": {}}]}, inventory=name
        )
    result.raise_for_failures()
    documents = {host: result.hosts[host].document if host in result.hosts else None for host in hosts}
    rendered = {
        host: str((document or {}).get("configurations", {}).get(BASELINE, {}).get("id", "nothing"))
        for host, document in documents.items()
    }
    return {host: found for host, found in rendered.items() if found != wanted[host]}


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


def on_record(context: RunContext, baseline: dict[str, str]) -> dict[str, str]:
    """The baseline as it is by now: of a run that is resumed late a later one's, or what somebody has deployed since.

    A host that runs what it has confirmed is on its baseline, and who confirmed another is told.
    """
    return baselines_now(context, baseline)[0]


def baselines_now(context: RunContext, baseline: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """As `on_record`, and the hosts on which it is a later run's."""
    recorded = context.store.baselines(context.fleet.name)
    statuses, _ = on_each_host([host for host in context.fleet.hosts if host.name in baseline], read_status)
    now, later = dict(baseline), []
    for host, status in sorted(statuses.items()):
        own = status.get("confirmed")
        if own and own != baseline[host] and own == status.get("live") and not status.get("lease"):
            now[host] = str(own)
            known = host in recorded and recorded[host].configuration == own
            later += [host] if known else []
            text = f"its baseline is {own} by now, confirmed {'by a later run' if known else 'outside a run'}; it stays"
            context.observer(Notice(level="info" if known else "warning", host=host, text=text))
    return now, later


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
