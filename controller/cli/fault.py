"""What is no expected error is a fault of ours: one sentence, and the traceback in a file for whoever mends it."""

from __future__ import annotations

import argparse
import os
import tempfile
import traceback
from pathlib import Path

from controller.adapters.secrets import hidden
from controller.model.errors import RatchetError, Unexpected, unexpected


def fault(error: Exception, args: argparse.Namespace) -> Unexpected:
    """The error to tell in its place; its traceback is written where the sentence says."""
    trace = hidden("".join(traceback.format_exception(error)))
    step = f"report it, please, with {_kept(trace, args)}; what is unfinished: controller runs"
    return unexpected(error, f"controller {args.command}", step)


def _kept(trace: str, args: argparse.Namespace) -> str:
    """Where the traceback is: the project's private folder, else a temporary file, else the sentence itself."""
    for folder in (_state(args), None):
        try:
            descriptor, name = tempfile.mkstemp(prefix="traceback-", suffix=".txt", dir=folder)
            with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
                file.write(trace)
        except OSError:
            continue
        return name
    return f"this, which could be written nowhere:\n{trace}"


def _state(args: argparse.Namespace) -> Path | None:
    from controller.cli.run_setup import find_project

    try:
        state = find_project(args).state
    except (RatchetError, OSError):
        return None
    return state if state.is_dir() else None
