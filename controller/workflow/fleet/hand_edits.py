"""Edits by hand: take what stands on the hosts as the new baseline, where the operator says so (`--adopt`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.adapters.audit import Outcome
from controller.model.errors import HostFailed
from controller.model.events import Notice
from controller.workflow.context import RunContext
from controller.workflow.fleet.claims import ask_program
from controller.workflow.fleet.hosts import describe_drift, on_each_host, read_status, unfit


def adopt_edits(context: RunContext) -> None:
    """Confirm the baseline anew on every host where only edits by hand are in the way.

    Edited files that the configuration includes stay, and are the record from now on. The main file is rendered from
    parameters: of an edited one the host keeps a copy, and the operator is told where. Raises HostFailed when a host
    refuses, FleetLocked; such a host is as it was.
    """
    statuses, _ = on_each_host(context.fleet.hosts, read_status)
    drifted = {name: status for name, status in statuses.items() if status.get("drift") and not unfit(_as_if(status))}
    if drifted:
        with context.accounted("adopt", sorted(drifted), "make edits by hand the baseline (--adopt)") as outcome:
            _adopt(context, drifted, outcome)


def _adopt(context: RunContext, drifted: dict[str, dict[str, Any]], outcome: Outcome) -> None:
    context.claims.renew(drifted)
    answers, failures = on_each_host(
        [host for host in context.fleet.hosts if host.name in drifted],
        lambda host: ask_program(host, "confirm", *context.claims.options, str(drifted[host.name]["confirmed"])),
    )
    adopted = {name: answer for name, answer in sorted(answers.items()) if answer["ok"]}
    outcome.evidence = {name: {"adopted": one["adopted"], "kept": one["saved"]} for name, one in adopted.items()}
    refused = {name: error.what for name, error in failures.items()}
    refused |= {name: str(answer.get("error")) for name, answer in answers.items() if not answer["ok"]}
    late = context.claims.refused(refused)
    if late:
        raise late
    for name, answer in adopted.items():
        tell_adopted(context, name, answer)
    if refused:
        raise HostFailed(
            "edits by hand cannot be adopted: " + "; ".join(f"{name}: {why}" for name, why in sorted(refused.items())),
            where=", ".join(sorted(refused)),
            next_step="mend or undo the edit on the host (nginx -t shows what is wrong), then run the command again",
        )


def tell_adopted(context: RunContext, host: str, answer: Mapping[str, Any]) -> None:
    """Say what a confirm or a rollback made of edits by hand: loudly, and with what differed."""
    if answer.get("adopted"):
        text = f"its edits by hand are the baseline now: {describe_drift(answer['adopted'])}"
        context.observer(Notice(level="warning", host=host, text=text))
    for kept in answer.get("saved") or []:
        text = (
            f"an edit of its nginx.conf is not live: that file is rendered from parameters. It is kept as {kept}; put "
            f"what it changed into inventory/{context.fleet.name}/group_vars/all/nginx.yml"
        )
        context.observer(Notice(level="warning", host=host, text=text))


def _as_if(status: dict[str, Any]) -> dict[str, Any]:
    """The status as it would be without the edits: a confirm makes the baseline live."""
    return status | {"drift": None, "live": status.get("confirmed"), "verified": True}
