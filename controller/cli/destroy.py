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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.host_steps import HostSteps
    from controller.cli.run_setup import accounts_of, find_project, holding_servers
    from controller.model.errors import BadInput
    from controller.workflow.destroy import destroy
    from controller.workflow.provision import Progress, read_servers

    project = find_project(args)
    read_servers(project, args.fleet)
    if not args.yes and not sys.stdin.isatty():
        raise BadInput(
            "this deletes servers, and there is no terminal to ask on",
            next_step=f"controller destroy --fleet {args.fleet} --yes",
        )
    declined = False

    def confirm(found: Leftovers) -> bool:
        nonlocal declined
        if args.yes:
            return True
        steps.pause()
        print(f"This deletes for good: {found.words()}", file=sys.stderr)
        print("Type the fleet's name to go on: ", end="", file=sys.stderr, flush=True)
        declined = sys.stdin.readline().strip() != args.fleet
        steps.resume()
        return not declined

    def tell(text: str) -> None:
        steps(Progress(f"note: {text}"))

    steps = HostSteps()
    with holding_servers(project, args.fleet, "destroy", tell) as hold, steps:
        accounts = accounts_of(project, args.fleet, hold.store, tell)
        deleted = destroy(project, args.fleet, os.environ, steps, confirm=confirm, store=hold.store, accounts=accounts)
    if declined:
        raise BadInput("not confirmed: nothing was deleted")
    if args.output == "json":
        print(json.dumps({"fleet": args.fleet, "deleted": deleted}))
    elif deleted:
        print(f"fleet {args.fleet} is deleted. Its settings, kept parameters, key and runs stay;")
        print(f"next: controller provision --fleet {args.fleet}, or delete inventory/{args.fleet}")
    else:
        print(f"nothing to delete: the cloud has nothing of fleet {args.fleet}")
    return 0
