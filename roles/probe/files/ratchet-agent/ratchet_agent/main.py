"""One call of the agent, from its arguments to its exit code."""

from __future__ import annotations

import argparse
import os
import syslog
from pathlib import Path

from ratchet_agent import VERSION
from ratchet_agent.commands import command_read, command_run, command_ssh

PROBE_ROOT = "/var/lib/ratchet/probe"
SESSION_COMMAND = "sudo -n /usr/local/sbin/ratchet-host session --lease {lease} --design {design} --bound {bound}"
LIVE_LOG = "/var/log/ratchet/live.log"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ratchet-agent", description="The probe (docs/architecture.md, docs/csv.md).")
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--root", type=Path, default=Path(PROBE_ROOT), help="where rows and sidecars are kept")
    parser.add_argument(
        "--session", default=SESSION_COMMAND, help="what switches; the plan's {lease} {design} {bound} are filled in"
    )
    parser.add_argument("--live-log", type=Path, default=Path(LIVE_LOG), help="where nginx logs live traffic")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="carry out the plan on stdin")
    read = commands.add_parser("read", help="write a trial's file to stdout")
    read.add_argument("run")
    read.add_argument("trial")
    read.add_argument("which", choices=("csv", "sidecar"))
    commands.add_parser("ssh", help="what SSH_ORIGINAL_COMMAND says, if it is run or read")
    options = parser.parse_args(arguments)
    os.umask(0o027)
    syslog.openlog("ratchet-agent", syslog.LOG_PID, syslog.LOG_DAEMON)
    if options.command == "run":
        return command_run(options.root, options.session, options.live_log)
    if options.command == "read":
        return command_read(options.root, options.run, options.trial, options.which)
    return command_ssh(options.root, options.session, options.live_log, os.environ.get("SSH_ORIGINAL_COMMAND", ""))
