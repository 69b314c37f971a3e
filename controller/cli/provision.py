"""`controller provision --fleet F`: create the fleet's servers and set them up."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from controller.cli.run_setup import add_fleet_argument, add_output_argument

if TYPE_CHECKING:
    from controller.workflow.fleet.provision import Provisioned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_fleet_argument(parser)
    parser.add_argument(
        "--close-ports", action="store_true", help="do not ask before the firewall closes what is open now"
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.host_steps import HostSteps
    from controller.cli.run_setup import accounts_of, find_project, holding_servers
    from controller.cli.streams import answer
    from controller.model.errors import BadInput
    from controller.workflow.fleet.provision import Progress, provision, read_servers

    project = find_project(args)
    read_servers(project, args.fleet)
    steps = HostSteps()

    def tell(text: str) -> None:
        steps(Progress(f"note: {text}"))

    def may_close(rules: list[str]) -> bool:
        what = f"the firewall {args.fleet} would close what is open now: {'; '.join(rules)}"
        if args.close_ports:
            return True
        if not sys.stdin.isatty():
            raise BadInput(
                f"{what}; no rule was changed",
                where=f"fleet {args.fleet}",
                next_step="add the networks to `ssh_sources` in ratchet.yml, or give them a rule of their own in the "
                f"cloud console, which stays; to close them: controller provision --fleet {args.fleet} --close-ports",
            )
        with steps.paused():
            print(what, file=sys.stderr)
            return answer("Type yes to go on: ") == "yes"

    with holding_servers(project, args.fleet, "provision", tell) as hold, steps:
        result = provision(
            project,
            args.fleet,
            os.environ,
            steps,
            run_id=hold.run_id,
            holder=hold.name,
            generation=hold.generation,
            accounts=accounts_of(project, args.fleet, hold.store, tell),
            may_close=may_close,
        )
    if args.output == "json":
        print(json.dumps(result.document()))
    else:
        _print(result)
    for error in result.failures.values():
        print(f"controller: {error}", file=sys.stderr)
    return 3 if result.failures else 0


def _print(result: Provisioned) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("host", "address", "type", "location", "state", box=None)
    for host in result.hosts.values():
        table.add_row(host.name, host.address, host.type, host.location, "[red]failed[/red]" if host.error else "ready")
    console = Console(highlight=False)
    console.print(table)
    if result.failures:
        ready = len(result.hosts) - len(result.failures)
        text = f"{ready} of {len(result.hosts)} hosts are ready; run the command again: it goes on where it stopped"
    elif result.changed:
        text = f"fleet {result.fleet} is ready; next: controller optimize --fleet {result.fleet} --dry-run"
    else:
        text = f"nothing changed: fleet {result.fleet} is as its settings say"
    console.print(text, markup=False)
