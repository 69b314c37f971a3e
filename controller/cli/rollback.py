"""`controller rollback --fleet F [--to RUN | --before RUN]`."""

from __future__ import annotations

import argparse
import json

from controller.cli.run_setup import add_fleet_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--to", metavar="RUN", help="the baseline that RUN left")
    target.add_argument("--before", metavar="RUN", help="the baseline that RUN found: undo RUN and all after it")
    parser.add_argument(
        "--take-over", action="store_true", help="also from another machine's run that holds the fleet: it is stopped"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import holding, listening, named_run, open_context, work_id
    from controller.cli.running import DatabaseWatch, in_background
    from controller.workflow.fleet.rollback import roll_back_to_baseline, roll_back_to_run

    context, work = open_context(args, ProgressDisplay()), work_id("rollback")
    why, said = "to the confirmed baseline", "the baseline is being put back; that is finished first"
    reference = named_run(context.project, args.to or args.before or "")
    if reference:
        why = f"to what run {reference} left" if args.to else f"to what run {reference} found"
        said = "stopping, unless a host has confirmed the change"
    account = context.accounted(
        "rollback",
        [host.name for host in context.fleet.hosts],
        f"{why}, taken over by force" if args.take_over else why,
        always=not reference,
    )
    hold = holding(context, run_id=work, since=context.now(), by_force=args.take_over)
    # First the account: to take the fleet over from another run is a change already.
    with listening(context.stop, said, said), account as outcome, hold as held:
        lost = DatabaseWatch(context.store, again=f"controller rollback --fleet {args.fleet}").lost
        if reference:
            baseline = in_background(
                lambda: roll_back_to_run(held, reference, work_id=work, before=bool(args.before)), lost
            )
        else:
            baseline = in_background(lambda: roll_back_to_baseline(held), lost)
        outcome.what, outcome.evidence = f"{len(baseline)} hosts, verified", {"baseline": baseline}
    if args.output == "json":
        print(json.dumps({"fleet": context.fleet.name, "baseline": baseline}))
    else:
        for host, configuration in sorted(baseline.items()):
            print(f"{host}: {configuration} live, verified")
    return 0
