"""The program's standard streams: what nobody can read ends nothing; a result that could not be handed over is told.

A write to them never raises. Of stderr nothing comes of it: it only tells. Of stdout the failure is kept until the
command's end, but for a reader who has gone: who ends a pipe has read enough.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# As of a host or the infrastructure that fails (model/errors.py).
EXIT_NOT_WRITTEN = 3


class _Unfailing(io.FileIO):
    """`failure`: why something was not written; None while all was, or its reader has gone."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            # None: somebody has made it non-blocking, and it is full.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except BrokenPipeError:
            pass
        except (OSError, ValueError) as error:
            self.failure = error if isinstance(error, OSError) else OSError(str(error))
        return memoryview(data).nbytes


def take_over() -> None:
    """Make the process's own streams such; what a caller has put in their place stays."""
    _fill_gaps()
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        # As stderr does: what the terminal has no letter for is written as an escape.
        sys.stdout = _unfailing(1, sys.stdout)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _unfailing(2, sys.stderr)


def _fill_gaps() -> None:
    """Put /dev/null where a stream is closed: else the next file that is opened gets its number, and what it tells."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)


def _unfailing(descriptor: int, replaced: TextIO | None) -> TextIO:
    raw = _Unfailing(descriptor, "wb", closefd=False)
    # The one that is replaced must not write at the process's end what it could not write now.
    if replaced is not None:
        with contextlib.suppress(OSError, ValueError):
            replaced.flush()
    own = replaced if isinstance(replaced, io.TextIOWrapper) else None
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=own.encoding if own else "utf-8",
        errors="backslashreplace",
        line_buffering=own.line_buffering if own else True,
        write_through=own.write_through if own else False,
    )


def handed_over(code: int) -> int:
    """At a command's end: its exit code; one that is not 0, and a sentence, when its output was not written whole."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Unfailing) else None
    if failure is None:
        return code
    print(
        f"controller: the output could not be written whole: {failure.strerror or failure}\n"
        "  next: free the disk that it goes to, or send it elsewhere; what the command did is done",
        file=sys.stderr,
    )
    return code or EXIT_NOT_WRITTEN


def answer(question: str) -> str:
    """What is typed after the question, without blanks around; empty when there is nobody to answer."""
    print(question, end="", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip()
    except (OSError, ValueError):
        return ""
