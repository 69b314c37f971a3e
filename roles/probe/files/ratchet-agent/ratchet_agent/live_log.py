"""nginx' log of live traffic."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import NamedTuple

from ratchet_agent.errors import AgentError

MAX_LOG_BYTES = 64 << 20
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


class LiveLog:
    """nginx' live log, read on from where the last reading ended; a rotation in between loses nothing.

    Attributes:
        was_cut: it has become shorter since it was last looked at, so lines are lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        self._unfinished = b""
        self._amid_line = False
        self.was_cut = False

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
        self._next_file()
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, end - 1))
        self._amid_line = self._file.read(1) not in {b"", b"\n"}
        self._unfinished = b""
        self.was_cut = False

    def lines(self) -> list[bytes]:
        """The whole lines since the last reading. Raises AgentError("probe") when they are too many for a block."""
        data = self._unfinished + self._read() + (self._read() if self._next_file() else b"")
        *lines, self._unfinished = data.split(b"\n")
        if self._amid_line and lines:
            del lines[0]
            self._amid_line = False
        return lines

    def _next_file(self) -> bool:
        """Whether the log was rotated: what is left of the old file has been read, the new one is open."""
        try:
            now = self._path.stat()
        except OSError:
            return False
        known = os.fstat(self._file.fileno())
        if (now.st_dev, now.st_ino) == (known.st_dev, known.st_ino):
            return False
        self._file.close()
        self._file = self._open()
        return True

    def _read(self) -> bytes:
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self.was_cut = True
            self._file.seek(0)
        data = self._file.read(MAX_LOG_BYTES + 1)
        if len(data) > MAX_LOG_BYTES:
            raise AgentError("probe", f"{self._path}: over {MAX_LOG_BYTES >> 20} MiB in one block; plan shorter blocks")
        return data
