"""Ask the hosts themselves: what runs, what is confirmed, is anything edited by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from controller.adapters.ssh import ask
from controller.model.answers import read_object
from controller.model.errors import HandEdited, HostFailed, RatchetError, RestoreUnverified, unexpected
from controller.model.fleet import Fleet, Host

STATUS_COMMAND = "sudo -n /usr/local/sbin/ratchet-host status"
MINIMUM_FREE_MB = 200

T = TypeVar("T")


def on_each_host(hosts: list[Host], ask: Callable[[Host], T]) -> tuple[dict[str, T], dict[str, RatchetError]]:
    """Ask all hosts at once; returns host -> answer and host -> error. A fault of ours is that host's failure only."""
    answers: dict[str, T] = {}
    failures: dict[str, RatchetError] = {}
    with ThreadPoolExecutor(max_workers=min(32, max(1, len(hosts)))) as pool:
        for host, future in [(host, pool.submit(ask, host)) for host in hosts]:
            try:
                answers[host.name] = future.result()
            except Exception as error:
                failures[host.name] = error if isinstance(error, RatchetError) else unexpected(error, host.name)
    return answers, failures


def read_status(host: Host) -> dict[str, Any]:
    """The host's own answer to `ratchet-host status`, with `free_mb` of /var/lib. Raises HostFailed, Transient."""
    code, out, err = ask(host, host.admin_user, f"{STATUS_COMMAND}; df -Pm /var/lib | tail -n 1", timeout=30)
    lines = out.strip().splitlines()
    try:
        document = check_status(read_object("\n".join(lines[:-1])))
        document["free_mb"] = int(lines[-1].split()[3])
    except (ValueError, IndexError):
        raise HostFailed(
            f"ratchet-host does not answer (exit {code}): {(err or out).strip()[:300] or 'no output'}",
            where=host.name,
            next_step="set the host up: ansible-playbook -i inventory/FLEET playbooks/site.yml",
        ) from None
    return document


def check_status(document: dict[str, Any]) -> dict[str, Any]:
    """The document, if what is read of it is what a host has to say. Raises ValueError."""
    for name in ("confirmed", "live"):
        if document.get(name) is not None and not re.fullmatch("[0-9a-f]{16}|original", str(document[name])):
            raise ValueError(f"{name}: not the id of a configuration")
    if not isinstance(document.get("nginx", {}), dict):
        raise ValueError("nginx: expected an object")
    return document


@dataclass(frozen=True)
class Examination:
    """`found`: host -> id of its baseline, for the fit hosts; `problems`: host -> why it is not fit."""

    found: dict[str, str]
    problems: dict[str, str]
    next_steps: frozenset[str]

    def failure(self, fleet: Fleet, problems: dict[str, str]) -> HostFailed:
        """The error that names the problems."""
        return HostFailed(
            "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items())),
            where=f"fleet {fleet.name}",
            next_step="; ".join(sorted(self.next_steps))
            or f"controller status --fleet {fleet.name}, then mend what it names",
        )


def examine(fleet: Fleet) -> Examination:
    """Doctor: every host reachable, nginx healthy, disk free, nothing edited by hand, baseline live."""
    statuses, failures = on_each_host(fleet.hosts, read_status)
    problems = {name: str(error.what) for name, error in failures.items()}
    problems |= {name: problem for name, status in statuses.items() if (problem := unfit(status))}
    steps = {error.next_step for error in failures.values() if error.next_step}
    if any(status.get("drift") for status in statuses.values()):
        steps.add(adopt_step(fleet.name))
    found = {name: str(status["confirmed"]) for name, status in statuses.items() if name not in problems}
    return Examination(found, problems, frozenset(steps))


def check_hosts(fleet: Fleet) -> dict[str, str]:
    """Host -> id of its baseline. Raises HostFailed naming every host that is not fit."""
    examined = examine(fleet)
    if examined.problems:
        raise examined.failure(fleet, examined.problems)
    return examined.found


def unfit(status: dict[str, Any]) -> str:
    """Why a host may not be experimented on; empty when it may."""
    if not status.get("ok"):
        return str(status.get("error", "ratchet-host reports a problem"))
    if not status.get("confirmed"):
        return "has no confirmed baseline yet; run playbooks/site.yml"
    if not status.get("nginx", {}).get("running"):
        return "nginx is not running"
    if "claim" not in status:
        return "its ratchet-host is older than this controller; run playbooks/site.yml"
    if status.get("lease"):
        return "another trial holds the host's lease; it ends by itself"
    drift = status.get("drift")
    if drift:
        return f"was edited by hand: {describe_drift(drift)}"
    if status.get("live") != status.get("confirmed"):
        return "does not run its baseline; run controller rollback first"
    if not status.get("verified", True):
        return "nginx may still run another configuration than its baseline; run controller rollback first"
    if status["free_mb"] < MINIMUM_FREE_MB:
        return f"only {status['free_mb']} MB are free on /var/lib (needs {MINIMUM_FREE_MB})"
    return ""


def describe_drift(drift: Any) -> str:
    """One line about what differs, from the host's drift report."""
    if isinstance(drift, dict):
        return "; ".join(f"{key}: {value}" if value is not True else key for key, value in drift.items())[:2000]
    return str(drift)[:2000]


def verify_running(fleet: Fleet, expected: dict[str, str]) -> dict[str, str]:
    """Over fresh connections: every host runs its expected baseline; returns host -> what was edited there by hand.

    Raises RestoreUnverified naming those that do not.
    """
    statuses, failures = on_each_host([host for host in fleet.hosts if host.name in expected], read_status)
    wrong = {name: str(error.what) for name, error in failures.items()}
    wrong |= dict.fromkeys(set(expected) - set(statuses) - set(failures), "has left the fleet, so nobody has looked")
    edited: dict[str, str] = {}
    for name, status in statuses.items():
        if status.get("live") != expected[name] or status.get("confirmed") != expected[name]:
            wrong[name] = f"runs {status.get('live')}, confirmed {status.get('confirmed')}, expected {expected[name]}"
        elif not status.get("verified", True):
            wrong[name] = f"nginx is not known to run {expected[name]}, though it is in place"
        elif status.get("drift"):
            edited[name] = describe_drift(status["drift"])
    if wrong:
        raise RestoreUnverified(
            "the baseline could not be verified: " + "; ".join(f"{name}: {why}" for name, why in sorted(wrong.items())),
            where=", ".join(sorted(wrong)),
            next_step=f"controller rollback --fleet {fleet.name}, or on the host: sudo ratchet-host rollback",
        )
    return edited


def edited_on_baseline(fleet: Fleet, expected: dict[str, str]) -> dict[str, str]:
    """Host -> what differs, for the hosts that run their baseline, with no trial on them, and were edited by hand."""
    statuses, _ = on_each_host([host for host in fleet.hosts if host.name in expected], read_status)
    return {
        name: describe_drift(status["drift"])
        for name, status in sorted(statuses.items())
        if status.get("drift")
        and not status.get("lease")
        and status.get("verified", True)
        and status.get("live") == status.get("confirmed") == expected[name]
    }


def hand_edited(fleet: str, edited: dict[str, str]) -> HandEdited:
    """`edited`: host -> what differs."""
    return HandEdited(
        "; ".join(f"{name}: was edited by hand: {what}" for name, what in sorted(edited.items())),
        where=", ".join(sorted(edited)),
        next_step=adopt_step(fleet),
    )


def adopt_step(fleet: str) -> str:
    return (
        f"undo the edit on the host, or make it the baseline: controller optimize --fleet {fleet} --adopt "
        "(controller rollback undoes what it can, and keeps copies)"
    )
