"""The commit: every host goes from the one configuration on record to the other, or none does.

First each host runs the new configuration under its lease, and shows it; until then whatever breaks off goes back by
itself. Then, recorded before the first of them, each confirms it. From there on there is one direction: a host that is
away, a database that is locked, a full disk or an operator's Ctrl-C delay what is left, and whoever comes next
finishes it (`finish_open`). Only ids that are staged and on record go live: nothing is rendered here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, NamedTuple

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.kept import kept_file, read_kept_text, with_kept, write_kept_text
from controller.adapters.patience import spread
from controller.adapters.store import open_commits, read_commit, record_commit
from controller.model.commit import Commit
from controller.model.errors import FleetLocked, HostFailed, Interrupted, RatchetError, RestoreUnverified
from controller.model.events import Notice, StepStarted
from controller.model.fleet import Host
from controller.workflow import hosts as doctor
from controller.workflow.adopting import tell_adopted
from controller.workflow.claims import ask_program
from controller.workflow.context import RunContext
from controller.workflow.hosts import on_each_host

# A wave is live on every host within seconds; a host's own confirm arms a lease of its own.
LEAST_LEASE_SECONDS = 60
# For what must be done once the first host has confirmed: two minutes in all, then whoever comes next does it.
INSIST_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class Committed(NamedTuple):
    """A commit as far as it has come. `doubt`: host -> why it does not agree with the record yet."""

    commit: Commit
    doubt: dict[str, str]


class Refused(HostFailed):
    """The host answered, and does not take it."""


class Elsewhere(Refused):
    """Somebody has made another configuration the host's baseline meanwhile: that is not ours to undo."""


def carry_out(context: RunContext, commit: Commit) -> Committed:
    """Commit, or go on with what is recorded under the same name.

    Raises, with every host back on `before` or on its way there by its lease: HostFailed naming the hosts that failed,
    Interrupted, FleetLocked. FleetLocked may come later too: a host that another run has by now is left to it.
    """
    commit = read_commit(context.store, commit.commit_id) or commit
    if commit.state == "returned":
        raise HostFailed("its commit was broken off before any host had confirmed it, and was taken back")
    if commit.state == "done":
        return Committed(commit, {})
    if not commit.forward:
        record_commit(context.store, commit)
        commit = _go_live(context, commit)
    return _finish(context, commit)


def finish_open(context: RunContext) -> dict[str, str]:
    """Finish the fleet's commits that were broken off, each in its recorded direction.

    Returns host -> why it does not agree with the record yet. Raises FleetLocked.
    """
    doubt: dict[str, str] = {}
    for commit in open_commits(context.store, context.fleet.name):
        forward = commit.forward and (bool(commit.confirmed) or not _none_confirmed(context, commit))
        what = "finishing it" if forward else "no host had confirmed it: taking it back"
        context.observer(Notice(text=f"{commit.why} ({commit.run_id}) was broken off; {what}"))
        if not forward:
            _take_back(context, commit)
            continue
        try:
            doubt |= _finish(context, commit, pauses=INSIST_SECONDS[:2]).doubt
        except HostFailed as error:
            # Every host has refused it, and is back.
            context.observer(Notice(level="warning", text=f"{commit.why} is not carried out: {error.what}"))
    return doubt


def supersede(context: RunContext, commit: Commit) -> Commit:
    """The commit with what earlier ones have left open taken over: where a host is that did not follow them."""
    before = dict(commit.before)
    for earlier in open_commits(context.store, context.fleet.name):
        if earlier.commit_id != commit.commit_id and set(earlier.open) <= set(commit.after) | _gone(context, earlier):
            before |= {host: earlier.before[host] for host in earlier.open if host in before}
            record_commit(context.store, earlier.model_copy(update={"state": "done"}))
    return commit.model_copy(update={"before": before})


def _go_live(context: RunContext, commit: Commit) -> Commit:
    """Every host runs it under its lease, and shows it over a new connection."""
    wave = _members(context, commit, commit.after)
    context.claims.renew(commit.after)
    lease = max(LEAST_LEASE_SECONDS, context.fleet.settings.trials.lease_seconds)
    try:
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
        # From the next line on it is finished forward.
        record_commit(context.store, commit)
    except RatchetError:
        _take_back(context, commit)
        raise
    return commit


def _switch(context: RunContext, host: Host, commit: Commit, lease: int) -> None:
    after = commit.after[host.name]
    if _baseline_of(host, commit) != after:
        _tell_program(context, host, "switch", after, "--lease", str(lease))


def _baseline_of(host: Host, commit: Commit) -> str:
    """`before` or `after`. Raises Elsewhere."""
    before, after = commit.before.get(host.name), commit.after[host.name]
    confirmed = doctor.read_status(host).get("confirmed")
    if confirmed not in {before, after}:
        raise Elsewhere(
            f"its baseline is {confirmed} by now, neither {before} nor {after}; it is left", where=host.name
        )
    return str(confirmed)


def _shown(host: Host, configuration: str) -> None:
    status = doctor.read_status(host)
    if status.get("live") != configuration or not status.get("verified", True):
        raise Refused(f"nginx does not show that it runs {configuration}", where=host.name)


def _tell_program(context: RunContext, host: Host, command: str, *words: str) -> dict[str, Any]:
    answer = ask_program(host, command, *context.claims.options, *words)
    if not answer["ok"]:
        raise Refused(str(answer.get("error", "ratchet-host refused it")), where=host.name)
    return answer


def _failed(failures: dict[str, RatchetError]) -> HostFailed:
    told = [f"{host}: {error.what}" for host, error in sorted(failures.items())]
    return HostFailed(
        "; ".join(told) if len(told) > 1 else next(iter(failures.values())).what,
        where=", ".join(sorted(failures)),
        next_step="mend what it names, then run the command again",
    )


def _take_back(context: RunContext, commit: Commit) -> None:
    """Nobody has confirmed it: have every host that answers go back now; the others' leases do it."""
    wave = _members(context, commit, context.claims.still_ours(commit.after))
    on_each_host(wave, lambda host: _go_back(context, host, commit))
    returned = commit.model_copy(update={"state": "returned"})
    for pause in [*spread(INSIST_SECONDS[:3]), 0.0]:
        try:
            record_commit(context.store, returned)
            return
        except HostFailed as error:
            told = error.what
            time.sleep(pause)
    context.observer(Notice(level="warning", text=f"that {commit.why} was taken back could not be recorded: {told}"))


def _go_back(context: RunContext, host: Host, commit: Commit) -> None:
    status = doctor.read_status(host)
    if status.get("live") == commit.after[host.name] != status.get("confirmed"):
        ask_program(host, "rollback", *context.claims.options)


def _finish(context: RunContext, commit: Commit, pauses: Sequence[float] = INSIST_SECONDS) -> Committed:
    """Confirm on every host that has not; then write down what is so. Only what is another run's stops it."""
    context.stop.committing = True
    try:
        commit, doubt = _confirm(context, commit, pauses)
        if doubt and not commit.confirmed and _none_confirmed(context, commit):
            _take_back(context, commit)
            raise _failed({host: HostFailed(why) for host, why in doubt.items()})
        commit = commit.model_copy(update={"state": "booking"})
        doubt |= _verify(context, commit, pauses)
        if _insist(context, "settings and baselines", lambda: _book(context, commit), pauses):
            commit = commit.model_copy(update={"booked": commit.confirmed})
        if commit.booked == commit.confirmed and not _members(context, commit, commit.open):
            commit = commit.model_copy(update={"state": "done"})
        _insist(context, "the commit", partial(record_commit, context.store, commit), pauses)
    finally:
        context.stop.committing = False
    return Committed(commit, doubt)


def _confirm(context: RunContext, commit: Commit, pauses: Sequence[float]) -> tuple[Commit, dict[str, str]]:
    failures: dict[str, RatchetError] = {}
    for pause in [*spread(pauses), 0.0]:
        left = _members(context, commit, commit.open)
        context.claims.renew([host.name for host in left])
        answers, failures = on_each_host(left, partial(_confirm_one, context, commit))
        for name, answer in sorted(answers.items()):
            tell_adopted(context, name, answer)
        if answers:
            commit = commit.model_copy(update={"confirmed": sorted({*commit.confirmed, *answers})})
            # The end of this phase is recorded again: a database that is locked just now keeps nobody waiting.
            _insist(context, "the commit", partial(record_commit, context.store, commit), ())
        commit, failures = _without_elsewhere(context, commit, failures)
        late = context.claims.refused({name: error.what for name, error in failures.items()})
        if late:
            raise late
        absent = [name for name, error in failures.items() if not isinstance(error, Refused)]
        if not failures or context.stop.at_once or (commit.without_absent and set(absent) == set(failures)):
            break
        if pause:
            context.observer(StepStarted(text=f"not confirmed yet: {', '.join(sorted(failures))}; trying again"))
            time.sleep(pause)
    doubt = {name: f"{commit.after[name]} is not confirmed: {error.what}" for name, error in failures.items()}
    return commit, doubt


def _without_elsewhere(
    context: RunContext, commit: Commit, failures: dict[str, RatchetError]
) -> tuple[Commit, dict[str, RatchetError]]:
    """A host that somebody has given another baseline since is no part of the commit any more; that is told."""
    away = {name: error for name, error in failures.items() if isinstance(error, Elsewhere)}
    for name, error in sorted(away.items()):
        context.observer(Notice(level="warning", host=name, text=f"{commit.why}: {error.what}"))
    after = {host: configuration for host, configuration in commit.after.items() if host not in away}
    rest = {name: error for name, error in failures.items() if name not in away}
    return commit.model_copy(update={"after": after}), rest


def _confirm_one(context: RunContext, commit: Commit, host: Host) -> dict[str, Any]:
    _baseline_of(host, commit)
    return _tell_program(context, host, "confirm", commit.after[host.name])


def _none_confirmed(context: RunContext, commit: Commit) -> bool:
    """Whether every host of the wave says that it has not confirmed it."""
    wave = _members(context, commit, commit.after)
    statuses, failures = on_each_host(wave, doctor.read_status)
    return not failures and all(
        status.get("confirmed") == commit.before.get(name) != commit.after[name] for name, status in statuses.items()
    )


def _verify(context: RunContext, commit: Commit, pauses: Sequence[float]) -> dict[str, str]:
    """Over fresh connections: host -> why it is not known to run what it has confirmed."""
    new = set(commit.confirmed) - set(commit.booked)
    expected = {host.name: commit.after[host.name] for host in _members(context, commit, new)}
    for pause in [*spread(pauses), 0.0]:
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


def _book(context: RunContext, commit: Commit) -> None:
    """Settings and records say what the hosts have confirmed. What is booked already may have moved on since."""
    if not commit.booked:
        write_kept_text(context.project, commit.fleet, _kept_text(context, commit))
    for host in sorted(set(commit.confirmed) - set(commit.booked)):
        context.store.record_baseline(
            fleet=commit.fleet,
            host=host,
            configuration=commit.after[host],
            run_id=commit.run_id,
            recorded_at=context.now(),
        )


def _kept_text(context: RunContext, commit: Commit) -> str:
    current = read_kept_text(context.project, commit.fleet)
    if current in {commit.kept_before, commit.kept_after}:
        return commit.kept_after
    if commit.parameters:
        return with_kept(
            context.project, commit.fleet, parameters=commit.parameters, comment=commit.comment, text=current
        )
    copy = context.run_directory(commit.run_id) / "kept.edited.yml"
    write_atomically(copy, current)
    text = f"{kept_file(context.project, commit.fleet)} was edited meanwhile; what it said is kept as {copy}"
    context.observer(Notice(level="warning", text=text))
    return commit.kept_after


def _insist(context: RunContext, what: str, write: Callable[[], None], pauses: Sequence[float]) -> bool:
    """Write down what is so already; False, and told, when that fails for as long as the pauses last."""
    told = ""
    for pause in [*spread(pauses), 0.0]:
        try:
            write()
        except FleetLocked:
            raise
        except RatchetError as error:
            told = str(error)
        else:
            return True
        if context.stop.at_once:
            break
        time.sleep(pause)
    if pauses:
        text = f"the hosts have the change, but {what} could not be recorded: {told}; the next command writes it"
        context.observer(Notice(level="warning", text=text))
    return False


def _members(context: RunContext, commit: Commit, names: Container[str]) -> list[Host]:
    """The named hosts, without those that have left the fleet since."""
    return [host for host in context.fleet.hosts if host.name in names and host.name in commit.after]


def _gone(context: RunContext, commit: Commit) -> set[str]:
    return set(commit.after) - {host.name for host in context.fleet.hosts}
