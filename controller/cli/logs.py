"""Where log lines go: with -v to stderr, and always to a file: the run's own, else the project's.

Modules log through `logging.getLogger(__name__)`; this is the only place that says where to. Whatever a line says, and
whoever wrote it, secrets are hidden in it and what would end or steer a line is an escape. No line ends any work.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import shutil
import stat
import sys
import textwrap
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.adapters.files.atomic import append_whole
from controller.adapters.files.private_state import state_folder
from controller.adapters.secrets import hidden, remember_environment
from controller.model.errors import RatchetError, printable
from controller.model.project import Project

NAME = "controller.log"
# Of a file; the one before it is kept beside it as controller.log.1.
LARGEST_BYTES = 10_000_000
LONGEST, LONGEST_SHOWN = 8000, 1000
# A run begins before its folder is there: its log begins with what was said until then.
EARLY_LINES = 500

# What changes or asks a host, or reads its account, is worth a file; the rest only looks at files that are here.
KEPT = {"provision", "destroy", "optimize", "resume", "end", "rollback", "status", "audit"}
# At warning, and at debug with -vv. No others: SQLAlchemy, for one, would write down whole rows.
THIRD_PARTIES = ("paramiko", "hcloud", "urllib3", "dbos", "ansible-runner")
OURS = "controller"
# What commands say they say on stderr by themselves.
SAID_ANYWAY = "controller.cli."


class _Line(logging.Formatter):
    """One line an event, in UTC; of a long one the beginning and the end."""

    default_msec_format = "%s.%03dZ"

    def __init__(self, form: str, longest: int, times: str = "%Y-%m-%dT%H:%M:%S") -> None:
        super().__init__(form)
        self.converter = time.gmtime
        self.default_time_format = times
        self._half = longest // 2

    def format(self, record: logging.LogRecord) -> str:
        parts = record.name.split(".")
        # `ssh` of controller.adapters.ssh.connection, `engine` of controller.workflow.engine.
        record.room = parts[2] if parts[0] == OURS and len(parts) > 2 else parts[0]
        text = hidden(super().format(record))
        if len(text) > 2 * self._half:
            text = f"{text[: self._half]} [...] {text[-self._half :]}"
        return printable(text).replace("\n", "\\n").replace("\t", "\\t")


class _Stderr(logging.Handler):
    """Looks for stderr at each line: while bars are shown, rich has one of its own there, which prints above them."""

    def emit(self, record: logging.LogRecord) -> None:
        # rich answers a pipe that is gone with SystemExit.
        with contextlib.suppress(Exception, SystemExit):
            text = self.format(record)
            if sys.stderr.isatty():
                width = max(40, shutil.get_terminal_size().columns)
                text = textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False)
            print(text, file=sys.stderr)


class _File(logging.Handler):
    """Appends whole lines to a file of the operator's alone. What cannot be written is told once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._descriptor = -1
        self._early: deque[bytes] = deque(maxlen=EARLY_LINES)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
        except Exception as error:
            line = f"a line of {record.name} could not be formatted: {type(error).__name__}\n".encode()
        self._early.append(line)
        self._write(line)

    def go_on_in(self, path: Path) -> None:
        """Write to `path` from now on; it begins with what was written until now."""
        self.acquire()
        try:
            self._close()
            self._path = path
            for line in self._early:
                self._write(line)
        finally:
            self.release()

    def close(self) -> None:
        self._close()
        super().close()

    def _write(self, line: bytes) -> None:
        try:
            if self._descriptor < 0:
                self._open()
            if os.fstat(self._descriptor).st_size + len(line) > LARGEST_BYTES:
                self._rotate()
            append_whole(self._descriptor, line)
        except (OSError, ValueError) as error:
            if not self._told:
                self._told = True
                what = getattr(error, "strerror", None) or error
                with contextlib.suppress(Exception, SystemExit):
                    print(f"warning: {self._path}: {what}; what is not written there is lost", file=sys.stderr)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        # Not of /dev/null, where somebody has led it.
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.fchmod(self._descriptor, 0o600)

    def _rotate(self) -> None:
        """Several commands may write to one file: whoever has its lock renames it, the others find it renamed."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                self._path.rename(self._path.with_name(f"{self._path.name}.1"))
        self._close()
        self._open()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextmanager
def logged(args: argparse.Namespace) -> Iterator[None]:
    """Send log lines where the command's arguments say, until the block ends. Never raises."""
    remember_environment(os.environ)
    handlers: list[logging.Handler] = [logging.NullHandler(), *_shown(args.verbose), *_kept(args)]
    levels = {OURS: logging.DEBUG if len(handlers) > 1 else logging.WARNING}
    levels |= dict.fromkeys(THIRD_PARTIES, logging.DEBUG if args.verbose > 1 else logging.WARNING)
    before = {name: logging.getLogger(name).level for name in levels}
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    try:
        _set_levels(levels)
        yield
    finally:
        _set_levels(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def log_of_run(folder: Path) -> None:
    """From now on this process writes down what it does in the run's folder."""
    path = folder / NAME
    logging.getLogger(__name__).info("going on in %s", path)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _File):
            handler.go_on_in(path)


def _shown(verbose: int) -> list[logging.Handler]:
    if not verbose:
        return []
    handler = _Stderr(logging.DEBUG if verbose > 1 else logging.INFO)
    handler.setFormatter(_Line("%(asctime)s %(levelname)s %(room)s: %(message)s", LONGEST_SHOWN, "%H:%M:%S"))
    handler.addFilter(lambda record: not record.name.startswith(SAID_ANYWAY))
    return [handler]


def _kept(args: argparse.Namespace) -> list[logging.Handler]:
    from controller.cli.run_setup import find_project

    if args.command not in KEPT:
        return []
    try:
        project: Project = find_project(args)
    except RatchetError:
        return []  # the command says so
    with contextlib.suppress(RatchetError, OSError):
        state_folder(project, "log")
    handler = _File(project.state / "log" / NAME)
    handler.setFormatter(_Line("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s", LONGEST))
    return [handler]


def _set_levels(levels: dict[str, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
