"""What a commit writes down once hosts have confirmed it: recorded baselines, and the fleet's kept parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.kept import kept_file, read_kept_text, with_kept, write_kept_text
from controller.adapters.patience import tries
from controller.model.commit import Commit
from controller.model.errors import FleetLocked, RatchetError, unexpected
from controller.model.events import Notice
from controller.workflow.context import RunContext

# For what must be done once the first host has confirmed: two minutes in all, then whoever comes next does it.
INSIST_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


def book(context: RunContext, commit: Commit, pauses: Sequence[float]) -> Commit:
    """Record the baselines of hosts that have confirmed since, then the parameters; returns how far that came.

    What is booked already is not touched again: it may have moved on since. Raises FleetLocked when one of the hosts
    is another run's by now, whose records these are.
    """
    new = sorted(set(commit.confirmed) - set(commit.booked))
    context.claims.renew(new)
    kept = [commit.kept_after]

    def write_kept() -> None:
        kept.append(_kept(context, commit))
        write_kept_text(context.project, commit.fleet, kept[-1])

    recorded = insist(context, "the baselines", lambda: _record_baselines(context, commit, new), pauses)
    written = bool(commit.booked) or insist(context, "the kept parameters", write_kept, pauses)
    booked = {"booked": commit.confirmed} if recorded and written else {}
    return commit.model_copy(update={"kept_after": kept[-1]} | booked)


def _record_baselines(context: RunContext, commit: Commit, hosts: list[str]) -> None:
    members = {host.name for host in context.fleet.hosts}
    for host in hosts:
        if host in members:
            context.store.record_baseline(
                fleet=commit.fleet,
                host=host,
                configuration=commit.after[host],
                run_id=commit.run_id,
                recorded_at=context.now(),
            )


def _kept(context: RunContext, commit: Commit) -> str:
    current = read_kept_text(context.project, commit.fleet)
    if current in {commit.kept_before, commit.kept_after}:
        return commit.kept_after
    if commit.parameters:
        return with_kept(
            context.project, commit.fleet, parameters=commit.parameters, comment=commit.comment, text=current
        )
    copy = context.run_directory(commit.run_id) / "kept.edited.yml"
    copy.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(copy, current)
    text = f"{kept_file(context.project, commit.fleet)} was edited meanwhile; what it said is kept as {copy}"
    context.observer(Notice(level="warning", text=text))
    return commit.kept_after


def insist(context: RunContext, what: str, write: Callable[[], None], pauses: Sequence[float]) -> bool:
    """Write down what is so already; False, and told, when that fails for as long as the pauses last."""
    told = ""
    for pause in tries(pauses):
        try:
            write()
        except FleetLocked:
            raise
        except Exception as error:
            told = str(error if isinstance(error, RatchetError) else unexpected(error, what))
        else:
            return True
        if context.stop.at_once:
            break
        time.sleep(pause)
    if pauses:
        text = f"the hosts have the change, but {what} could not be recorded: {told}; the next command writes it"
        context.observer(Notice(level="warning", text=text))
    return False
