"""nginx' log of live traffic."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ratchet_agent.errors import AgentError

MAX_LOG_BYTES = 64 << 20
_CHUNK_BYTES = 256 << 10
# Workers open the new file within moments of the rotation; one that is busy, a little later.
REOPEN_SECONDS = 60.0
# $msec $request_time $status $bytes_sent $connection_requests $ratchet_class "$upstream_response_time"
_LOGGED = re.compile(
    rb"([0-9]{1,12})\.([0-9]{3}) ([0-9]{1,8})\.([0-9]{3}) ([0-9]{3}) ([0-9]{1,15}) ([0-9]{1,9}) "
    rb'([a-z][a-z0-9_-]{0,31}) "[^"]*"'
)


class Logged(NamedTuple):
    """One request as nginx logged it: milliseconds of the host's clock, and the class of its path."""

    begun_ms: int
    took_ms: int
    status: int
    size: int
    reused: bool
    label: str


def parse_logged(line: bytes) -> Logged | None:
    """A line of the live log; None when it is none."""
    found = _LOGGED.fullmatch(line)
    if found is None:
        return None
    ended_ms, took_ms = int(found[1] + found[2]), int(found[3] + found[4])
    return Logged(ended_ms - took_ms, took_ms, int(found[5]), int(found[6]), int(found[7]) > 1, found[8].decode())


class _File:
    """One file of the log, and what of it has not been taken yet."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._unfinished = b""
        self._amid_line = False
        self.was_cut = False
        # When it was found to be rotated away, by the monotonic clock; None while it is the log.
        self.rotated: float | None = None

    @property
    def identity(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_dev, status.st_ino

    @property
    def unread(self) -> int:
        return max(0, os.fstat(self._file.fileno()).st_size - self._file.tell())

    def skip(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, end - 1))
        self._amid_line = self._file.read(1) not in {b"", b"\n"}
        self._unfinished = b""
        self.was_cut = False

    def lines(self) -> Iterator[bytes]:
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self.was_cut = True
            self._file.seek(0)
        left = self.unread
        while left > 0 and (data := self._file.read(min(left, _CHUNK_BYTES))):
            left -= len(data)
            *lines, self._unfinished = (self._unfinished + data).split(b"\n")
            if self._amid_line and lines:
                del lines[0]
                self._amid_line = False
            yield from lines

    def close(self) -> None:
        self._file.close()


class LiveLog:
    """nginx' live log, read on from where the last reading ended; rotations in between lose nothing.

    A rotated file is read on for a while: nginx writes to it until each of its workers has opened the new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = [_File(self._open())]

    @property
    def was_cut(self) -> bool:
        """Whether it has become shorter since it was last looked at, so that lines are lost."""
        return any(file.was_cut for file in self._files)

    def _open(self) -> io.FileIO:
        try:
            return io.FileIO(self._path)
        except OSError as error:
            raise AgentError(
                "probe",
                f"{self._path}: {error.strerror}; set the host up again: playbooks/site.yml, and see that nginx writes "
                "its live log (nginx_live_log: true)",
            ) from None

    def skip(self) -> None:
        """Go to the end; where that is within a line, the line does not count."""
        self._follow()
        for file in list(self._files):
            file.skip()
            if file.rotated is not None and time.monotonic() - file.rotated > REOPEN_SECONDS:
                file.close()
                self._files.remove(file)

    def keep_up(self) -> None:
        """Notice a rotation before the next one takes the file away; nothing is read.

        Raises AgentError("probe") when there is too much for a block.
        """
        self._follow()
        if sum(file.unread for file in self._files) > MAX_LOG_BYTES:
            raise AgentError("probe", f"{self._path}: over {MAX_LOG_BYTES >> 20} MiB in one block; plan shorter blocks")

    def lines(self) -> Iterator[bytes]:
        """The whole lines since the last reading. Raises AgentError("probe") when they are too many for a block."""
        self.keep_up()
        for file in self._files:
            yield from file.lines()

    def _follow(self) -> None:
        """Hold the file that is the log now, beside those that were."""
        try:
            now = self._path.stat()
        except OSError:
            return
        if (now.st_dev, now.st_ino) == self._files[-1].identity:
            return
        self._files[-1].rotated = time.monotonic()
        self._files.append(_File(self._open()))
