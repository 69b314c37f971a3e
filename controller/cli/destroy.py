"""`controller destroy --fleet F`: delete the fleet's servers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_fleet_argument, add_output_argument

if TYPE_CHECKING:
    from controller.adapters.hetzner import Leftovers
    from controller.workflow.fleet.destroy import Destroyed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="also forget hosts that the token's project does not have: their lines in hosts.yml, host keys, records",
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.host_steps import HostSteps
    from controller.cli.run_setup import accounts_of, find_project, holding_servers
    from controller.cli.streams import answer
    from controller.model.errors import BadInput
    from controller.workflow.fleet.destroy import destroy
    from controller.workflow.fleet.provision import Progress, read_servers

    project = find_project(args)
    read_servers(project, args.fleet)
    if not args.yes and not sys.stdin.isatty():
        raise BadInput(
            "this deletes servers, and there is no terminal to ask on",
            next_step=f"controller destroy --fleet {args.fleet} --yes{' --forget' if args.forget else ''}",
        )

    def confirm(found: Leftovers, forgotten: list[str]) -> bool:
        if args.yes:
            return True
        with steps.paused():
            if found:
                print(f"This deletes for good: {found.words()}", file=sys.stderr)
            if forgotten:
                print(f"This forgets hosts that the cloud does not have: {', '.join(forgotten)}", file=sys.stderr)
            return bool(answer("Type the fleet's name to go on: ") == args.fleet)

    def tell(text: str) -> None:
        steps(Progress(f"note: {text}"))

    steps = HostSteps()
    with holding_servers(project, args.fleet, "destroy", tell) as hold, steps:
        accounts = accounts_of(project, args.fleet, hold.store, tell)
        result = destroy(
            project,
            args.fleet,
            os.environ,
            steps,
            confirm=confirm,
            store=hold.store,
            accounts=accounts,
            forget=args.forget,
        )
    _print(args, result)
    return 0


def _print(args: argparse.Namespace, result: Destroyed) -> None:
    if args.output == "json":
        names = {"servers": result.servers, "forgotten": result.forgotten, "kept": result.kept}
        print(json.dumps({"fleet": args.fleet, "deleted": bool(result)} | names))
        return
    if not result:
        print(f"nothing to delete: the cloud has nothing of fleet {args.fleet}")
    elif result.kept:
        print(
            f"deleted: {', '.join(result.servers)}. Not in the cloud, and still known here: {', '.join(result.kept)};"
        )
        print(f"if they are gone too: controller destroy --fleet {args.fleet} --forget")
    else:
        print(f"fleet {args.fleet} is deleted. Its settings, kept parameters, key and runs stay;")
        print(f"next: controller provision --fleet {args.fleet}, or delete inventory/{args.fleet}")
