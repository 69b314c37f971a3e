"""Entry point: finds the command, imports only its module, turns expected errors into one message and an exit code."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from controller import __version__
from controller.cli import streams

VERBOSE = "verbose of "

# command -> (module, one line of help). A module offers add_arguments(parser) and run(args) -> exit code.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("controller.cli.init", "write a project folder to start from"),
    "provision": ("controller.cli.provision", "create the fleet's servers and set them up"),
    "destroy": ("controller.cli.destroy", "delete the fleet's servers, and what is known here of them"),
    "optimize": ("controller.cli.optimize", "run experiments; keep what is proven better, revert the rest"),
    "status": ("controller.cli.status", "what each host runs now"),
    "history": ("controller.cli.history", "past runs and their verdicts"),
    "show": ("controller.cli.show", "one run in full"),
    "verify": ("controller.cli.verify", "recompute a run's verdicts from its CSVs"),
    "rollback": ("controller.cli.rollback", "put a fleet back to its baseline, or to before a run"),
    "runs": ("controller.cli.runs", "what is unfinished, and what to type"),
    "resume": ("controller.cli.resume", "finish or safely revert what a killed controller left"),
    "end": ("controller.cli.end", "give up a run that cannot be resumed: restore, and seal what it has"),
    "prune": ("controller.cli.prune", "delete the evidence of old runs, and say what is kept and why"),
    "audit": ("controller.cli.audit", "who did what to which host; verify that the log is whole"),
    "experiments": ("controller.cli.experiments", "list or check experiments, print their schema"),
    "lab": ("controller.cli.lab", "a local Hetzner-compatible cloud of real hosts"),
}


log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """A command's parser, and those of its words: -v may stand after each. argparse would let the last one win."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        text = "log to stderr what is asked of hosts and cloud (-vv: all of it)"
        self.add_argument("-v", "--verbose", action="count", default=0, dest=f"{VERBOSE}{self.prog}", help=text)


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the chosen command's module is imported, so that `--help` stays fast."""
    parser = _Parser(prog="controller", description="Tune nginx fleets by experiment: measured, proven, reversible.")
    parser.add_argument("--version", action="version", version=f"controller {__version__}")
    parser.add_argument("--project", type=Path, default=None, metavar="DIR", help="project folder (default: here)")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    return parser


def _command(arguments: list[str]) -> str | None:
    """The first word that is neither an option nor an option's value: a project folder may be named `lab`."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            return word if word in COMMANDS else None
        if "--project".startswith(word) and word != "--":
            next(words, None)
    return None


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code (2 for bad input, see model/errors.py)."""
    streams.take_over()
    try:
        return streams.handed_over(_obey(sys.argv[1:] if argv is None else argv))
    except SystemExit as ended:
        # argparse: its help, or words that are no command.
        sys.exit(streams.handed_over(ended.code if isinstance(ended.code, int) else int(ended.code is not None)))


def _obey(arguments: list[str]) -> int:
    """Every error as one message and an exit code."""
    args = build_parser(_command(arguments)).parse_args(arguments)
    args.verbose = sum(count for name, count in vars(args).items() if name.startswith(VERBOSE))
    from controller.cli.logs import logged

    started = time.monotonic()
    with logged(args):
        log.info("controller %s: %s", __version__, shlex.join(arguments))
        code = _carry_out(args)
        log.info("ended with %d after %.1f s", code, time.monotonic() - started)
    return code


def _carry_out(args: argparse.Namespace) -> int:
    from controller.model.errors import DatabaseLost, RatchetError

    try:
        code: int = importlib.import_module(COMMANDS[args.command][0]).run(args)
    except RatchetError as error:
        log.error("%s", error)
        print(f"controller: {error}", file=sys.stderr, flush=True)
        if isinstance(error, DatabaseLost):
            # What still waits for the database would keep the process from its end.
            os._exit(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        log.warning("interrupted")
        print("controller: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from controller.cli.fault import fault

        told = fault(error, args)
        print(f"controller: {told}", file=sys.stderr)
        return told.exit_code
    return code
