"""The command line: words in, checked arguments out."""

from __future__ import annotations

import argparse
import re
import sys

from ratchet_host import VERSION
from ratchet_host.paths import CONFIRM_LEASE, HOLDER, ID, LABEL, LONGEST_LEASE, ORIGINAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def identity_argument(text: str) -> str:
    if not ID.fullmatch(text):
        raise argparse.ArgumentTypeError("expected the 16 hex digits of a configuration's id")
    return text


def rollback_argument(text: str) -> str:
    return text if text == ORIGINAL else identity_argument(text)


def lease_argument(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 5 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError("expected 5 to 3600 seconds")
    return int(text)


def generation_argument(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise argparse.ArgumentTypeError("expected a number")
    return int(text)


def run_argument(text: str) -> str:
    if not LABEL.fullmatch(text):
        raise argparse.ArgumentTypeError("expected the name of a run: letters, digits, dot, dash and _, at most 64")
    return text


def holder_argument(text: str) -> str:
    if not HOLDER.fullmatch(text):
        raise argparse.ArgumentTypeError("expected letters, digits and . _ @ / -, at most 128")
    return text


class BadUsage(Exception):
    """The command line is none of ours."""


class Parser(argparse.ArgumentParser):
    """Tells bad usage on stderr and in the document; options are written in full."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise BadUsage(message)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Raises BadUsage."""
    parser = Parser(prog="ratchet-host", description="Put nginx configurations live, and take them back.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(dest="command", required=True)
    # A controller's command says for which run it speaks: it is refused when the host is no longer that run's.
    fenced = Parser(add_help=False)
    fenced.add_argument("--run", type=run_argument, help="the run that this belongs to")
    fenced.add_argument("--generation", type=generation_argument, metavar="N", help="of that run's claim")
    stage = commands.add_parser(
        "stage", parents=[fenced], help="place and test configurations, read as JSON from stdin"
    )
    stage.add_argument("--check", action="store_true", help="test only; nothing stays")
    switching = commands.add_parser("switch", parents=[fenced], help="make one live for the lease")
    switching.add_argument("configuration", type=identity_argument)
    switching.add_argument("--lease", type=lease_argument, default=CONFIRM_LEASE)
    confirm = commands.add_parser("confirm", parents=[fenced], help="make one live, and the baseline")
    confirm.add_argument("configuration", type=identity_argument)
    confirm.add_argument("--unedited", action="store_true", help="refuse where files were edited by hand since")
    rollback = commands.add_parser(
        "rollback", parents=[fenced], help="make the baseline live, or an earlier configuration the baseline"
    )
    rollback.add_argument("--to", type=rollback_argument, help="an id, or `original` for the distribution's file")
    commands.add_parser("status", help="what runs, what is confirmed, what was edited, who has claimed the host")
    claim = commands.add_parser("claim", help="keep other controllers' runs away for a while")
    claim.add_argument("--holder", type=holder_argument, required=True, help="who: user@machine")
    claim.add_argument("--run", type=run_argument, required=True)
    claim.add_argument("--seconds", type=lease_argument, required=True)
    claim.add_argument("--generation", type=generation_argument, metavar="N", default=0, help="ends earlier ones")
    claim.add_argument(
        "--end", type=run_argument, metavar="RUN", help="take over from this run, which is at an end then"
    )
    release = commands.add_parser("release", help="end a run's claim")
    release.add_argument("--run", type=run_argument, required=True)
    release.add_argument("--generation", type=generation_argument, metavar="N", help="of that run's claim")
    session = commands.add_parser("session", parents=[fenced], help="the agent's switching, line by line")
    session.add_argument("--design", choices=["switchback", "duet"], default="switchback")
    session.add_argument("--lease", type=lease_argument, required=True, help="seconds")
    session.add_argument(
        "--bound", type=lease_argument, default=LONGEST_LEASE, help="seconds that renewals may keep a variant live"
    )
    return parser.parse_args(arguments)
