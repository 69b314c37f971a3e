"""The first step of a run: every host fit, its baseline known and recorded; the broken ones named or left out."""

from __future__ import annotations

from controller.model.events import Notice, StepStarted
from controller.workflow.context import RunContext
from controller.workflow.fleet.hand_edits import adopt_edits
from controller.workflow.fleet.hosts import examine
from controller.workflow.fleet.open_commits import finish_open
from controller.workflow.fleet.quarantine import leave_out, quarantines, take_back, too_few


def check(context: RunContext, run_id: str, *, adopt: bool) -> dict[str, str]:
    """Returns host -> its baseline, of the hosts that take part.

    Raises HostFailed when a host is not fit, or, where broken hosts are quarantined, when fewer than half are.
    """
    context.observer(StepStarted(text="checking the hosts"))
    doubt = finish_open(context)
    if adopt:
        adopt_edits(context)
    examined = examine(context.fleet)
    behind = take_back(context, examined.found)
    problems = doubt | examined.problems | behind
    if problems and not quarantines(context):
        raise examined.failure(context.fleet, problems)
    leave_out(context, run_id, problems)
    found = {host: configuration for host, configuration in examined.found.items() if host not in problems}
    few = too_few(context, found)
    if few:
        raise few
    _record(context, found)
    return found


def _record(context: RunContext, found: dict[str, str]) -> None:
    recorded = context.store.baselines(context.fleet.name)
    for host, configuration in found.items():
        if host in recorded and recorded[host].configuration != configuration:
            context.observer(
                Notice(
                    host=host,
                    text=f"its baseline was confirmed outside a run: recorded {recorded[host].configuration}, "
                    f"now {configuration}; going on from there",
                )
            )
        context.store.record_baseline(
            fleet=context.fleet.name,
            host=host,
            configuration=configuration,
            run_id=recorded[host].run_id if host in recorded else "",
            recorded_at=context.now(),
        )
