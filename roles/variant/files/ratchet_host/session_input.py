"""What a session is told: lines, commands, and its end."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable

from ratchet_host.errors import Refused
from ratchet_host.paths import ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_LINE = 64 << 10


class Ended(Exception):
    """The session is over: its input ended, it was asked to, or a signal came."""


class Lines:
    """Reads stdin line by line, and wakes up for signals; handlers only leave a note, so nothing is cut short."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._signal = 0
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _note(self, number: int, _frame: object) -> None:
        self._signal = number

    def next(self, left: Callable[[], float]) -> bytes:
        """Raises Ended at the end of input, when a signal has come, and when no time is `left`; Refused for a line
        without end."""
        while True:
            if self._signal:
                raise Ended(f"signal {signal.Signals(self._signal).name}")
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                return bytes(line)
            if len(self._buffer) > MAX_LINE:
                raise Refused(f"a line is longer than {MAX_LINE >> 10} KiB")
            seconds = left()
            if seconds <= 0:
                raise Ended("the lease is over")
            ready, _, _ = select.select([0, self._woken], [], [], seconds)
            if 0 in ready:
                data = os.read(0, MAX_LINE)
                if not data:
                    raise Ended("end of input")
                self._buffer += data


def parse_command(line: bytes) -> dict[str, Any]:
    """One command of a session, with the fields it needs and no others. Raises Refused."""
    try:
        command = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the line is not JSON: {error}") from None
    if not isinstance(command, dict) or not isinstance(command.get("command"), str):
        raise Refused("expected an object with `command`")
    name = command["command"]
    fields = {"switch": ["configuration"], "assign": ["a", "b"], "renew": [], "status": [], "metrics": [], "end": []}
    if name not in fields:
        raise Refused(f"unknown command {name[:40]!r}")
    if set(command) != {"command", *fields[name]}:
        raise Refused(f"{name}: expected the fields {', '.join(fields[name]) or 'command only'}")
    for field in fields[name]:
        if not isinstance(command[field], str) or not ID.fullmatch(command[field]):
            raise Refused(f"{name}: {field} is not the id of a configuration")
    return command
