"""The commit: every host goes from the one configuration on record to the other, or none does.

First each host runs the new configuration under its lease, and shows it; until then whatever breaks off goes back by
itself. Then, recorded before the first of them, each confirms it. From there on there is one direction: a host that is
away, a database that is locked, a full disk or an operator's Ctrl-C delay what is left, and whoever comes next
finishes it (open_commits.py). Only ids that are staged and on record go live: nothing is rendered here.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

from controller.adapters.patience import tries
from controller.adapters.store import open_commits, read_commit, record_commit
from controller.model.commit import Commit
from controller.model.errors import HostFailed, Interrupted, RatchetError, RestoreUnverified
from controller.model.events import Notice, StepStarted
from controller.model.fleet import Host
from controller.workflow.context import RunContext
from controller.workflow.fleet import hosts as doctor
from controller.workflow.fleet.booking import INSIST_SECONDS, book, insist
from controller.workflow.fleet.claims import ask_program
from controller.workflow.fleet.hand_edits import tell_adopted
from controller.workflow.fleet.hosts import on_each_host

# A wave is live on every host within seconds; a host's own confirm arms a lease of its own.
LEAST_LEASE_SECONDS = 60


class Committed(NamedTuple):
    """A commit as far as it has come.

    Attributes:
        doubt: host -> why it does not agree with the record yet.
        left: host -> why it is no part of the commit any more.
    """

    commit: Commit
    doubt: dict[str, str]
    left: dict[str, str]


class Refused(HostFailed):
    """The host answered, and does not take it."""


class Elsewhere(Refused):
    """Somebody has made another configuration the host's baseline meanwhile: that is not ours to undo."""


def carry_out(context: RunContext, commit: Commit) -> Committed:
    """Commit, or go on with what is recorded under the same name.

    Raises, with every host back on `before` or on its way there by its lease: HostFailed naming the hosts that failed,
    Interrupted, FleetLocked. RestoreUnverified where no host can be asked whether it has confirmed. FleetLocked may
    come later too: a host that another run has by now is left to it.
    """
    commit = read_commit(context.store, commit.commit_id) or commit
    if commit.state == "returned":
        raise HostFailed("its commit was broken off before any host had confirmed it, and was taken back")
    if commit.ended:
        return _as_it_is(context, commit)
    if not commit.forward:
        if context.stop.requested:
            raise Interrupted(f"{context.stop.why}, before the change had begun")
        _record(context, commit)
        commit = _go_live(context, commit)
    else:
        commit = without_moved(context, commit)
        if commit.ended:
            return _as_it_is(context, commit)
    return finish(context, commit)


def _record(context: RunContext, commit: Commit) -> None:
    record_commit(context.store, commit, context.claims.generation)


def _as_it_is(context: RunContext, commit: Commit) -> Committed:
    """An ended commit as its hosts have it by now: it may have been undone since, or have left somebody out.

    Raises HostFailed where no host has it.
    """
    statuses, failures = on_each_host(members(context, commit, commit.after), doctor.read_status)
    has = [host for host, status in statuses.items() if status.get("confirmed") == commit.after[host]]
    left = {
        host: f"its baseline is {status.get('confirmed')} by now, not {commit.after[host]}"
        for host, status in sorted(statuses.items())
        if host not in has
    }
    doubt = {host: error.what for host, error in failures.items() if host in commit.confirmed}
    if not doubt and not commit.model_copy(update={"confirmed": has}).begun:
        raise HostFailed(f"{commit.why} was undone since: no host has it any more")
    doubt |= {
        host: f"nginx does not show that it runs {commit.after[host]}"
        for host in has
        if not _shows(statuses[host], commit.after[host])
    }
    return Committed(commit.model_copy(update={"confirmed": sorted({*has, *doubt})}), doubt, commit.left | left)


def _shows(status: Mapping[str, Any], configuration: str) -> bool:
    return status.get("live") == configuration and bool(status.get("verified", True))


def _go_live(context: RunContext, commit: Commit) -> Commit:
    """Every host runs it under its lease, and shows it over a new connection."""
    wave = members(context, commit, commit.after)
    absent: set[str] = set()
    try:
        context.claims.renew(commit.after)
        lease = max(LEAST_LEASE_SECONDS, context.fleet.settings.trials.lease_seconds)
        _, failures = on_each_host(wave, lambda host: _switch(context, host, commit, lease))
        late = context.claims.refused({name: error.what for name, error in failures.items()})
        if late:
            raise late
        absent = {name for name, error in failures.items() if not isinstance(error, Refused)}
        live = [host for host in wave if host.name not in failures]
        failures |= on_each_host(live, lambda host: _shown(host, commit.after[host.name]))[1]
        if commit.without_absent and live:
            failures = {name: error for name, error in failures.items() if name not in absent}
        if failures:
            raise _failed(failures)
        if context.stop.requested:
            raise Interrupted(f"{context.stop.why}, before any host had confirmed the change")
        commit = commit.model_copy(update={"state": "confirming"})
        # Who was taken over meanwhile learns it here. From the next line on it is finished forward.
        context.claims.renew(commit.after)
        _record(context, commit)
    except RatchetError:
        take_back_commit(context, commit, absent)
        raise
    return commit


def _end_earlier(context: RunContext, commit: Commit) -> None:
    """Once a host has confirmed this one: until then the earlier ones are still to be finished."""
    still_open = open_commits(context.store, context.fleet.name)
    for earlier in takewhile(lambda each: each.commit_id != commit.commit_id, still_open):
        behind = earlier.model_copy(update={"after": {h: i for h, i in earlier.after.items() if h not in commit.after}})
        if members(context, behind, behind.open):
            text = f"{earlier.why} ({earlier.run_id}): {missed(context, behind)}"
            context.observer(Notice(level="warning", text=text))
        supersede_commit(context, earlier)


def supersede_commit(context: RunContext, commit: Commit) -> Commit:
    """It is over: what is left of it is another's, or the operator's. Raises FleetLocked."""
    over = commit.model_copy(update={"state": "superseded"})
    insist(context, f"that {commit.why} is over", partial(_record, context, over), INSIST_SECONDS[:3])
    return over


def missed(context: RunContext, commit: Commit) -> str:
    """Who has not followed, and what to type."""
    hosts = ",".join(host.name for host in members(context, commit, commit.open))
    step = f"ansible-playbook -i inventory/{context.fleet.name} playbooks/commit.yml --limit {hosts}"
    return f"{hosts} has missed it; for what the inventory says: {step}"


def _switch(context: RunContext, host: Host, commit: Commit, lease: int) -> None:
    after = commit.after[host.name]
    if _baseline_of(host, commit)[0] != after:
        _tell_program(context, host, "switch", after, "--lease", str(lease))


def _baseline_of(host: Host, commit: Commit) -> tuple[str, bool]:
    """What the host has confirmed, of what the commits on record gave it; and whether it was edited since, where that
    is what the commit goes to. Raises Elsewhere, and Refused for edits of another baseline."""
    before, after = commit.before.get(host.name), commit.after[host.name]
    status = doctor.read_status(host)
    confirmed = status.get("confirmed")
    if confirmed not in {before, after, *commit.instead.get(host.name, [])}:
        raise Elsewhere(
            f"its baseline is {confirmed} by now, neither {before} nor {after}; it is left", where=host.name
        )
    edited = bool(status.get("drift"))
    if edited and status.get("live") == confirmed != after:
        # To confirm anything would make them the baseline, which is the operator's to say.
        what = f"was edited by hand: {doctor.describe_drift(status['drift'])}; undo that (ratchet-host rollback does)"
        raise Refused(what, where=host.name)
    return str(confirmed), edited and confirmed == after


def _shown(host: Host, configuration: str) -> None:
    if not _shows(doctor.read_status(host), configuration):
        raise Refused(f"nginx does not show that it runs {configuration}", where=host.name)


def _tell_program(context: RunContext, host: Host, command: str, *words: str) -> dict[str, Any]:
    answer = ask_program(host, command, *context.claims.options, *words)
    if not answer["ok"]:
        raise Refused(str(answer.get("error", "ratchet-host refused it")), where=host.name)
    return answer


def _failed(failures: dict[str, RatchetError]) -> HostFailed:
    if not failures:
        return HostFailed("no host of it is left in the fleet", next_step="controller optimize, for the hosts of now")
    told = [f"{host}: {error.what}" for host, error in sorted(failures.items())]
    return HostFailed(
        "; ".join(told) if len(told) > 1 else next(iter(failures.values())).what,
        where=", ".join(sorted(failures)),
        next_step="mend what it names, then run the command again",
    )


def take_back_commit(context: RunContext, commit: Commit, absent: Container[str] = ()) -> None:
    """Nobody has confirmed it: have every host that answers go back now; the others' leases do it.

    `absent`: who has not answered a moment ago, and is not waited for once more.
    """
    asked = [host for host in commit.after if host not in absent]
    wave = members(context, commit, context.claims.still_ours(asked))
    on_each_host(wave, lambda host: _go_back(context, host, commit))
    returned = commit.model_copy(update={"state": "returned"})
    for pause in tries(INSIST_SECONDS[:3]):
        try:
            _record(context, returned)
            return
        except HostFailed as error:
            told = error.what
            time.sleep(pause)
    context.observer(Notice(level="warning", text=f"that {commit.why} was taken back could not be recorded: {told}"))


def _go_back(context: RunContext, host: Host, commit: Commit) -> None:
    status = doctor.read_status(host)
    if status.get("live") == commit.after[host.name] != status.get("confirmed"):
        ask_program(host, "rollback", *context.claims.options)


def finish(context: RunContext, commit: Commit, pauses: Sequence[float] = INSIST_SECONDS) -> Committed:
    """Confirm on every host that has not; then write down what is so. Raises as `carry_out`."""
    context.stop.committing = True
    try:
        commit, failures, left = _confirm(context, commit, pauses)
        if not commit.begun:
            _nobody_has_it(context, commit, failures, left)
        insist(context, "what it takes the place of", partial(_end_earlier, context, commit), pauses)
        commit = without_moved(context, commit)
        left = commit.left | left
        if commit.ended:
            raise _failed({host: HostFailed(why) for host, why in left.items()} | failures)
        doubt = {name: f"{commit.after[name]} is not confirmed: {error.what}" for name, error in failures.items()}
        commit = commit.model_copy(update={"state": "booking"})
        doubt |= _verify(context, commit, pauses)
        commit = book(context, commit, pauses)
        if commit.booked == commit.confirmed and not members(context, commit, commit.open):
            commit = commit.model_copy(update={"state": "done"})
        insist(context, "the commit", partial(_record, context, commit), pauses)
    finally:
        context.stop.committing = False
    return Committed(commit, doubt, left)


def without_moved(context: RunContext, commit: Commit) -> Commit:
    """The commit without hosts that had confirmed it, and that somebody has given another baseline since.

    Where it is booked, or none of them has it any more, it is superseded: who has missed it follows the fleet, and not
    it. Else those that have it are still to be booked, and whoever has not confirmed it is left as well.
    """
    statuses, _ = on_each_host(members(context, commit, commit.after), doctor.read_status)
    others = {
        host: f"its baseline is {status['confirmed']} by now, not {commit.after[host]}; it is left"
        for host, status in sorted(statuses.items())
        if host in commit.confirmed and status.get("confirmed") not in {None, commit.after[host]}
    }
    if not others:
        return commit
    # Who has confirmed it may not have come to say so, or that not on record.
    has = [host for host in commit.open if statuses.get(host, {}).get("confirmed") == commit.after[host]]
    commit = commit.model_copy(update={"confirmed": sorted({*commit.confirmed, *has})})
    text = f"{', '.join(others)} has another baseline since"
    if members(context, commit, commit.open):
        text += f"; {missed(context, commit)}"
    context.observer(Notice(level="warning", text=f"{commit.why} ({commit.run_id}): {text}"))
    stay = commit.model_copy(update={"confirmed": [host for host in commit.confirmed if host not in others]})
    if commit.booked or not stay.begun:
        return supersede_commit(context, commit.model_copy(update={"left": commit.left | others}))
    missing = dict.fromkeys(commit.open, "it has not confirmed it, and the fleet has moved on since")
    after = {host: commit.after[host] for host in stay.confirmed}
    return stay.model_copy(update={"after": after, "left": commit.left | others | missing})


def _nobody_has_it(
    context: RunContext, commit: Commit, failures: dict[str, RatchetError], left: dict[str, str]
) -> None:
    """Nothing is written down of what no host has. Raises HostFailed once all are back, else RestoreUnverified."""
    said, silent = told_confirmed(context, commit)
    if said or silent:
        raise RestoreUnverified(
            "whether they have confirmed it is not known: "
            + "; ".join(f"{host}: {why}" for host, why in sorted((silent or dict.fromkeys(said, "it has")).items())),
            where=", ".join(sorted(silent or said)),
            next_step=f"make them reachable, then: controller rollback --fleet {commit.fleet}",
        )
    take_back_commit(context, commit)
    raise _failed({host: HostFailed(why) for host, why in left.items()} | failures)


def told_confirmed(context: RunContext, commit: Commit) -> tuple[list[str], dict[str, str]]:
    """Hosts that say that they have confirmed it; and host -> why, of those that cannot be asked."""
    wave = members(context, commit, commit.after)
    statuses, failures = on_each_host(wave, doctor.read_status)
    said = [
        name
        for name, status in sorted(statuses.items())
        if status.get("confirmed") == commit.after[name] != commit.before.get(name)
    ]
    return said, {name: error.what for name, error in failures.items()}


def _confirm(
    context: RunContext, commit: Commit, pauses: Sequence[float]
) -> tuple[Commit, dict[str, RatchetError], dict[str, str]]:
    """The commit with those that have confirmed; who has not, and why; and who is no part of it any more."""
    failures: dict[str, RatchetError] = {}
    left: dict[str, str] = {}
    for pause in tries(pauses):
        waiting = members(context, commit, commit.open)
        context.claims.renew([host.name for host in waiting])
        answers, failures = on_each_host(waiting, partial(_confirm_one, context, commit))
        elsewhere = {name: error.what for name, error in failures.items() if isinstance(error, Elsewhere)}
        left |= elsewhere
        failures = {name: error for name, error in failures.items() if name not in left}
        commit = commit.model_copy(
            update={
                "confirmed": sorted({*commit.confirmed, *answers}),
                "after": {host: identity for host, identity in commit.after.items() if host not in left},
                "left": commit.left | left,
            }
        )
        if answers:
            # The end of this phase is recorded again: a database that is locked just now keeps nobody waiting.
            insist(context, "the commit", partial(_record, context, commit), ())
        # Told when it is on record: whatever the telling comes to.
        for name, answer in sorted(answers.items()):
            tell_adopted(context, name, answer)
        for name, what in sorted(elsewhere.items()):
            context.observer(Notice(level="warning", host=name, text=f"{commit.why}: {what}"))
        late = context.claims.refused({name: error.what for name, error in failures.items()})
        if late:
            raise late
        absent = [name for name, error in failures.items() if not isinstance(error, Refused)]
        if not failures or context.stop.at_once or (commit.without_absent and set(absent) == set(failures)):
            break
        if pause:
            context.observer(StepStarted(text=f"not confirmed yet: {', '.join(sorted(failures))}; trying again"))
            time.sleep(pause)
    return commit, failures, left


def _confirm_one(context: RunContext, commit: Commit, host: Host) -> dict[str, Any]:
    if _baseline_of(host, commit)[1]:
        return {"ok": True}  # it has it; what was edited since is the operator's to make the baseline
    return _tell_program(context, host, "confirm", commit.after[host.name], "--unedited")


def _verify(context: RunContext, commit: Commit, pauses: Sequence[float]) -> dict[str, str]:
    """Over fresh connections: host -> why it is not known to run what it has confirmed since."""
    new = set(commit.confirmed) - set(commit.booked)
    expected = {host.name: commit.after[host.name] for host in members(context, commit, new)}
    for pause in tries(pauses):
        try:
            edited = doctor.verify_running(context.fleet, expected)
        except RestoreUnverified as error:
            doubt, why = error.where.split(", "), error.what
        else:
            for host, what in sorted(edited.items()):
                context.observer(Notice(level="warning", host=host, text=f"was edited by hand: {what}"))
            return {}
        if context.stop.at_once:
            break
        time.sleep(pause)
    return dict.fromkeys(doubt, why)


def members(context: RunContext, commit: Commit, names: Container[str]) -> list[Host]:
    """The named hosts of the commit, without those that have left the fleet since."""
    return [host for host in context.fleet.hosts if host.name in names and host.name in commit.after]
