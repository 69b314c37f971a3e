"""`controller rollback --fleet F [--to RUN | --before RUN]`."""

from __future__ import annotations

import argparse
import json
import secrets

from controller.cli.run_setup import add_fleet_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--to", metavar="RUN", help="the baseline that RUN left")
    target.add_argument("--before", metavar="RUN", help="the baseline that RUN found: undo RUN and all after it")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.adapters.store import FleetLock
    from controller.cli.progress import ProgressDisplay
    from controller.cli.run_setup import open_context
    from controller.workflow.planning import new_run_id
    from controller.workflow.rollback import roll_back_to_baseline, roll_back_to_run

    context = open_context(args, ProgressDisplay())
    now = context.now()
    name = new_run_id(now, secrets.randbits(64)).replace("r-", "rollback-", 1)
    with FleetLock(context.project, context.fleet.name, run_id=name, since=now):
        if args.to or args.before:
            baseline = roll_back_to_run(context, args.to or args.before, before=bool(args.before))
        else:
            baseline = roll_back_to_baseline(context)
    if args.output == "json":
        print(json.dumps({"fleet": context.fleet.name, "baseline": baseline}))
    else:
        for host, configuration in sorted(baseline.items()):
            print(f"{host}: {configuration} live, verified")
    return 0
