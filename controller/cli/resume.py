"""`controller resume [RUN]`: finish or safely revert what a killed controller left."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

from controller.cli.run_setup import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", default=None, help="default: every unfinished run")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    from controller.cli.optimize import exit_code, show_result
    from controller.cli.progress import ProgressDisplay
    from controller.cli.request import read_request
    from controller.cli.run_setup import find_project, open_context, open_store, unfinished_rows
    from controller.cli.running import carry_out
    from controller.model.errors import BadInput, Interrupted

    project = find_project(args)
    chosen = unfinished_rows(open_store(project), args.run)
    if not chosen:
        print("nothing is unfinished", file=sys.stderr)
        return 0
    if args.run is None and len(chosen) > 1:
        worst = 0
        for run_id, _, _ in chosen:
            code = _apart(args, run_id)
            worst = max(worst, code)
            if code == Interrupted.exit_code:
                break  # the operator's word: what is still to come is not begun
        return worst
    ((run_id, args.fleet, _),) = chosen
    display = ProgressDisplay()
    try:
        context = open_context(args, display)
    except BadInput as error:
        raise BadInput(
            f"run {run_id} was on fleet {args.fleet}: {error.what}",
            where=error.where,
            next_step=f"mend that, or give the run up: controller end {run_id}",
        ) from None
    request = read_request(project, run_id, args.fleet)
    with display:
        result = carry_out(context, request, action="resume")
    show_result(result, as_json=args.output == "json")
    return exit_code(result)


def _apart(args: argparse.Namespace, run_id: str) -> int:
    """Resume one of several in a process of its own: each run has one, and none keeps the next from its turn."""
    print(f"resuming {run_id}", file=sys.stderr, flush=True)
    project = ["--project", str(args.project)] if args.project else []
    # -P: with -m Python would look for every module in the working folder first, where anything may be.
    verbose = ["-v"] * args.verbose
    command = [sys.executable, "-P", "-m", "controller", *verbose, *project, "resume", run_id, "--output", args.output]
    with subprocess.Popen(command) as process:
        # Ctrl-C reaches every process of the terminal: it is the run's to hear, and this one's to wait.
        handlers = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number)),
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        }
        try:
            code = process.wait()
            # As a shell tells a process that a signal has ended.
            return code if code >= 0 else 128 - code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
