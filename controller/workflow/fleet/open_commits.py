"""Commits that were broken off, or that wait for a host: finished, taken back, or superseded by whoever comes next."""

from __future__ import annotations

from typing import Literal

from controller.adapters.store import open_commits, read_commit
from controller.model.commit import Commit
from controller.model.errors import HostFailed, RestoreUnverified
from controller.model.events import Notice
from controller.workflow.context import RunContext
from controller.workflow.fleet.booking import INSIST_SECONDS
from controller.workflow.fleet.committing import finish, take_back_commit, told_confirmed, without_moved


def finish_open(context: RunContext, *, undoing: bool = False) -> dict[str, str]:
    """Finish the fleet's open commits, each in its recorded direction.

    `undoing`: what some host has confirmed is left as it is, for a commit that supersedes it.
    Returns host -> why it does not agree with the record yet. Raises FleetLocked.
    """
    doubt: dict[str, str] = {}
    # The latest first: where it has begun, it takes the place of the earlier ones.
    for earlier in reversed(open_commits(context.store, context.fleet.name)):
        commit = read_commit(context.store, earlier.commit_id) or earlier
        if commit.ended:
            continue
        confirmed = commit.begun
        if commit.forward and not confirmed:
            said, silent = told_confirmed(context, commit)
            if not said and silent:
                # One of them may have confirmed it: nobody goes on, or back, before that is known.
                doubt |= {host: f"whether it has {commit.why} is not known: {why}" for host, why in silent.items()}
                break
            confirmed = bool(said)
        if not confirmed:
            _tell(context, commit, "no host has confirmed it: taking it back")
            take_back_commit(context, commit)
        elif not undoing and not (commit := without_moved(context, commit)).ended:
            waits = f"waits for {', '.join(commit.open)}" if commit.booked and commit.open else "was broken off"
            _tell(context, commit, f"{waits}; finishing it")
            try:
                doubt |= finish(context, commit, INSIST_SECONDS[:2]).doubt
            except HostFailed as error:
                _tell(context, commit, f"not carried out: {error.what}", level="warning")
            except RestoreUnverified as error:
                doubt |= dict.fromkeys(error.where.split(", "), error.what)
    return doubt


def supersede(context: RunContext, commit: Commit) -> Commit:
    """The commit, for hosts too that earlier ones have left open: each has what those left, or what they made."""
    instead: dict[str, list[str]] = {}
    for earlier in open_commits(context.store, context.fleet.name):
        for host in earlier.open:
            had = [*earlier.instead.get(host, []), earlier.before.get(host, ""), earlier.after[host]]
            instead[host] = [*instead.get(host, []), *had]
    return commit.model_copy(update={"instead": {host: ids for host, ids in instead.items() if host in commit.after}})


def _tell(context: RunContext, commit: Commit, what: str, *, level: Literal["info", "warning"] = "info") -> None:
    context.observer(Notice(level=level, text=f"{commit.why} ({commit.run_id}): {what}"))
