"""`controller lab up|down|status|api`: a local Hetzner-compatible cloud of real hosts."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.lab.daemon import Lab


def _lab_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", text):
        raise argparse.ArgumentTypeError("a lab's name is 1 to 31 small letters, digits and dashes")
    return text


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from controller.cli.run_setup import add_output_argument

    verbs = parser.add_subparsers(dest="verb", metavar="up|down|status|api", required=True)
    for verb, text in {
        "up": "prepare the images, start the API, print how to reach it; repeatable",
        "down": "delete the lab: servers, network, state, API",
        "status": "the API and the servers",
        "api": "serve the API in the foreground",
    }.items():
        command = verbs.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("--name", type=_lab_name, default="lab", help="which lab (default: lab)")
        if verb in {"up", "api"}:
            command.add_argument("--port", type=_port, help="the API's port on 127.0.0.1 (default: a free one)")
        if verb in {"up", "status"}:
            add_output_argument(command)


def run(args: argparse.Namespace) -> int:
    if args.verb in {"up", "api"}:
        _require_server()
    if args.verb == "api":
        from controller.lab.serve import serve

        serve(args.name, args.port or 0, announce=True)
        return 0
    from controller.cli.run_setup import find_project
    from controller.lab.daemon import Lab

    project = find_project(args)
    lab = Lab(args.name, project.state / "lab" / args.name)
    if args.verb == "up":
        from controller.adapters.files.private_state import state_folder

        state_folder(project)
        return _up(lab, args)
    if args.verb == "down":
        lab.down(say=print)
        print(f"the lab `{args.name}` is gone")
        return 0
    return _status(lab, args)


def _require_server() -> None:
    """Raises BadInput when what serves the API is not installed."""
    from controller.model.errors import BadInput

    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"the lab's API needs {error.name}, which is not installed",
            where="lab",
            next_step="pip install 'nginx-ratchet[lab]'",
        ) from None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _up(lab: Lab, args: argparse.Namespace) -> int:
    access = lab.up(port=args.port, say=_say)
    if args.output == "json":
        print(json.dumps(access.environment()))
        return 0
    for name, value in access.environment().items():
        print(f"export {name}={value}")
    return 0


def _status(lab: Lab, args: argparse.Namespace) -> int:
    from controller.lab.daemon import describe

    document = describe(lab)
    if args.output == "json":
        print(json.dumps(document))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "type", "image", "address", "state", "uptime")
    for server in document["servers"]:
        uptime = "" if server["uptime"] is None else _duration(server["uptime"])
        table.add_row(server["name"], server["type"], server["image"], server["address"], server["state"], uptime)
    console = Console()
    api = document["api"]["endpoint"] if document["api"] else "down (controller lab up starts it)"
    console.print(f"lab {document['name']}: API {api}")
    console.print(table if document["servers"] else "no servers")
    return 0


def _duration(seconds: int) -> str:
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"
