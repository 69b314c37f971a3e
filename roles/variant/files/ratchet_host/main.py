"""One call of the program: from its arguments to its document and exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import syslog

from ratchet_host import inherited, paths
from ratchet_host.command_line import BadUsage, parse_arguments
from ratchet_host.errors import Refused, explain
from ratchet_host.system import emit, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ratchet_host.claim import Fence


def fence_of(arguments: argparse.Namespace) -> Fence:
    from ratchet_host.claim import Fence

    return Fence(arguments.run, arguments.generation)


def dispatch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each command's room is loaded here, before anything is touched: half of what a call costs is its imports."""
    match arguments.command:
        case "stage":
            from ratchet_host.staging import command_stage

            return command_stage(check=arguments.check, fence=fence_of(arguments))
        case "switch":
            from ratchet_host.commands import command_switch

            return command_switch(arguments.configuration, arguments.lease, fence_of(arguments))
        case "confirm":
            from ratchet_host.commands import command_confirm

            return command_confirm(arguments.configuration, fence_of(arguments), unedited=arguments.unedited)
        case "rollback":
            from ratchet_host.commands import command_rollback

            return command_rollback(arguments.to, fence_of(arguments))
        case "status":
            from ratchet_host.status import command_status

            return command_status()
        case "claim":
            from ratchet_host.claim import command_claim

            return command_claim(
                arguments.holder, arguments.run, arguments.seconds, arguments.end, arguments.generation
            )
        case _:
            from ratchet_host.claim import command_release

            return command_release(arguments.run, arguments.generation)


def prepare() -> None:
    """A known environment, whoever calls."""
    inherited.reset()
    os.environ.clear()
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C")
    os.umask(0o022)
    os.chdir("/")
    syslog.openlog("ratchet-host", syslog.LOG_PID, syslog.LOG_DAEMON)
    if os.geteuid() != 0:
        raise Refused("must run as root: sudo ratchet-host ...")
    paths.RUN.mkdir(mode=0o755, exist_ok=True)
    paths.VAR.mkdir(mode=0o755, exist_ok=True)


def main(arguments: list[str]) -> int:
    try:
        parsed = parse_arguments(arguments)
    except BadUsage as usage:
        with contextlib.suppress(OSError):
            emit({"ok": False, "error": f"bad usage: {usage}"})
        return 2
    failure: dict[str, Any] = {"ok": False}
    if parsed.command == "session":
        failure["command"] = "ready"
    try:
        prepare()
        if parsed.command == "session":
            from ratchet_host.session import command_session

            return command_session(parsed.design, parsed.lease, parsed.bound, fence_of(parsed))
        # Half a change is worse than a late end: single commands finish, and they are bounded.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        document = dispatch(parsed)
    except (Refused, OSError) as error:
        log(f"{parsed.command}: {explain(error)}", syslog.LOG_ERR)
        document = failure | {"error": explain(error)}
    except Exception as error:
        import traceback

        log(traceback.format_exc(), syslog.LOG_CRIT)
        document = failure | {"error": f"internal error: {error!r}; see journalctl -t ratchet-host"}
    with contextlib.suppress(OSError):
        emit(document)
    return 0 if document["ok"] else 1
