"""`controller prune`: delete what is not needed any more of old runs, and say what, and what is kept and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from controller.cli.run_setup import add_output_argument

if TYPE_CHECKING:
    from controller.workflow.run.prune import Limits, Pruning

MOST_DAYS = 36_500
NAMED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", type=_number(MOST_DAYS), default=90, metavar="DAYS", help="runs that began before (default: 90)"
    )
    parser.add_argument(
        "--keep", type=_number(1_000_000), default=10, metavar="N", help="but for the newest N of each fleet (10)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_output_argument(parser)


def _number(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) > most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {most}")
        return int(text)

    return parse


def run(args: argparse.Namespace) -> int:
    from controller.adapters.files.pruned import finish_deletions
    from controller.adapters.store import database_url
    from controller.cli.run_setup import accounts_of, find_project, open_store, signals_as_ctrl_c, utc_now
    from controller.cli.running import DatabaseWatch, in_background
    from controller.workflow import engine
    from controller.workflow.run.prune import Limits, choose, prune

    project = find_project(args)
    store, url = open_store(project), database_url(project)
    limits = Limits(utc_now(), args.older_than, args.keep)
    watch = DatabaseWatch(store, again="controller prune")
    workflows = in_background(lambda: engine.recorded_workflows(url), watch.lost)
    chosen = choose(project, store, limits, workflows)
    deletes = any(chosen) and not args.dry_run
    _show(args, limits, chosen)
    if deletes and not args.yes:
        _ask()
    if args.dry_run:
        return 0
    with signals_as_ctrl_c():
        finish_deletions(project)
        prune(
            project,
            store,
            chosen,
            limits,
            accounts=lambda fleet: accounts_of(project, fleet, store, _tell),
            forget_workflows=lambda run_ids: in_background(lambda: engine.forget_workflows(url, run_ids), watch.lost),
            observe=_tell,
        )
    if deletes and args.output == "text":
        print("deleted")
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _ask() -> None:
    """Raises BadInput unless it is confirmed."""
    from controller.cli.streams import answer
    from controller.model.errors import BadInput

    if not sys.stdin.isatty():
        raise BadInput(
            "this deletes evidence for good, and there is no terminal to ask on; nothing was deleted",
            next_step="controller prune --yes, with the same options",
        )
    if answer("Delete this for good? Type yes to go on: ") != "yes":
        raise BadInput("not confirmed: nothing was deleted")


def _show(args: argparse.Namespace, limits: Limits, chosen: Sequence[Pruning]) -> None:
    if args.output == "json":
        print(json.dumps(_document(args, limits, chosen)))
        return
    for fleet in chosen:
        print(f"fleet {fleet.fleet}:")
        for line in _lines(fleet):
            print(f"  {line}")
    total = sum(fleet.size.bytes for fleet in chosen)
    if any(chosen):
        print(f"{'would be deleted' if args.dry_run else 'to be deleted'}: {_amount(total)}")
    else:
        print(f"nothing to delete of runs that are older than {limits.days} days, but for the newest {limits.newest}")


def _lines(fleet: Pruning) -> list[str]:
    lines = [
        f"delete the evidence of {run_id}: {size.files} files, {_amount(size.bytes)}"
        for run_id, size in fleet.evidence.items()
    ]
    lines += [
        f"delete {run_id}, which never came to a plan: {size.files} files, {_amount(size.bytes)}"
        for run_id, size in fleet.whole.items()
    ]
    if fleet.workflows:
        lines.append(f"delete the recorded steps of {len(fleet.workflows)} runs that have ended")
    if fleet.rollbacks:
        lines.append(f"delete the records of {fleet.rollbacks} rollbacks that are done")
    why: dict[str, list[str]] = defaultdict(list)
    for run_id, reason in fleet.kept.items():
        why[reason].append(run_id)
    for reason, run_ids in why.items():
        more = f" and {len(run_ids) - NAMED} more" if len(run_ids) > NAMED else ""
        lines.append(f"keep all of {', '.join(run_ids[:NAMED])}{more}: {reason}")
    lines.append(
        f"keep plans, verdicts, effects and settings of every run: show, rollback and the decisions of the last "
        f"365 days ({fleet.decisions}) need them"
    )
    return lines


def _amount(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000 or unit == "MB":
            break
        size = round(size / 1000)
    return f"{size} {unit}"


def _document(args: argparse.Namespace, limits: Limits, chosen: Sequence[Pruning]) -> dict[str, Any]:
    """`{"dry_run", "older_than_days", "keep", "bytes", "fleets": [...]}`: what is deleted and kept of each."""
    return {
        "dry_run": args.dry_run,
        "older_than_days": limits.days,
        "keep": limits.newest,
        "bytes": sum(fleet.size.bytes for fleet in chosen),
        "fleets": [
            {
                "fleet": fleet.fleet,
                "evidence": {run_id: size.__dict__ for run_id, size in fleet.evidence.items()},
                "deleted": {run_id: size.__dict__ for run_id, size in fleet.whole.items()},
                "steps_of": fleet.workflows,
                "rollbacks": fleet.rollbacks,
                "kept": fleet.kept,
                "decisions_of_last_365_days": fleet.decisions,
            }
            for fleet in chosen
        ],
    }
