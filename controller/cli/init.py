"""`controller init DIR`: write a project folder to start from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new or an empty folder, or one to add to")
    parser.add_argument("--fleet", default="web", metavar="NAME", help="the first fleet's name (default: web)")
    parser.add_argument(
        "--static", action="store_true", help="the fleet's servers exist already: write hosts.yml instead of `servers`"
    )


def run(args: argparse.Namespace) -> int:
    from controller.adapters.files.project_folder import write_project
    from controller.model.errors import BadInput

    try:
        args.directory.resolve()
        written = write_project(args.directory, args.fleet, static=args.static)
    except (OSError, RuntimeError) as error:
        # RuntimeError: a link to itself.
        raise BadInput(
            f"is no folder that a project can be in: {getattr(error, 'strerror', None) or error}",
            where=str(args.directory),
            next_step="name a folder that is new or empty",
        ) from None
    if written.note:
        print(f"note: {written.note}", file=sys.stderr)
    if not written.paths and not written.ignored:
        print(f"nothing to add: {args.directory} has everything already")
        return 0
    for path in written.paths:
        print(f"wrote {path}")
    if written.ignored:
        print(f"added to {args.directory / '.gitignore'}: {', '.join(written.ignored)}")
    settings = f"inventory/{args.fleet}"
    print(f"\nnext: cd {args.directory}")
    if args.static:
        print(f"      name your servers in {settings}/hosts.yml, their host keys in {settings}/known_hosts")
        print(f"      ansible-playbook -i {settings} playbooks/site.yml")
    else:
        print(f"      look at {settings}/group_vars/all/ratchet.yml, export HCLOUD_TOKEN=...")
        print(f"      controller provision --fleet {args.fleet}")
    print(f"      controller optimize --fleet {args.fleet} --dry-run")
    return 0
