"""The controller: plan and commands in, events out."""

from __future__ import annotations

import json
import os
import select
import signal
import time

from ratchet_agent.errors import AgentError
from ratchet_agent.loop import Loop

MAX_PLAN_BYTES = 8 << 20
MAX_COMMAND_BYTES = 64 << 10
PLAN_SECONDS = 30.0


class Controller:
    """The other end of stdin and stdout.

    Attributes:
        stop: why to end after the block under way; empty to go on.
        stop_now: why to end at once; empty to go on.
        fault: what came on stdin that is no command.
        renew: a heartbeat has come that has not been passed on.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._unfinished = b""
        self._deaf = False
        self._loop: Loop | None = None
        self.stop = ""
        self.stop_now = ""
        self.fault = ""
        self.renew = False

    def read_plan(self) -> bytes:
        """The first line. Raises AgentError("plan") when it does not come."""
        deadline = time.monotonic() + PLAN_SECONDS
        while b"\n" not in self._unfinished:
            if len(self._unfinished) > MAX_PLAN_BYTES:
                raise AgentError("plan", f"the plan is longer than {MAX_PLAN_BYTES >> 20} MiB")
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._source], [], [], left)[0]:
                raise AgentError("plan", f"no plan came on stdin within {PLAN_SECONDS:g} s")
            data = os.read(self._source, 65_536)
            if not data:
                raise AgentError("plan", "stdin ended before the plan's line did")
            self._unfinished += data
        line, _, self._unfinished = self._unfinished.partition(b"\n")
        return line

    def listen(self, loop: Loop) -> None:
        """Heed the lines that follow the plan, and signals. Raises AgentError("plan")."""
        self._loop = loop
        try:
            loop.add(self._source, self._read)
        except PermissionError:
            raise AgentError("plan", "stdin is a file; the agent takes its plan and commands from a pipe") from None
        waking, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)

        def woken(_events: int) -> None:
            os.read(waking, 64)

        loop.add(waking, woken)
        self._heed()

    def emit(self, event: str, **values: object) -> None:
        """Write an event; a controller that is gone ends the trial."""
        if self._deaf:
            return
        view = memoryview(json.dumps({"event": event, **values}, allow_nan=False).encode() + b"\n")
        try:
            while view:
                view = view[os.write(self._target, view) :]
        except OSError:
            self._deaf = True
            self.stop_now = self.stop_now or "the controller is gone"

    def _signalled(self, number: int, _frame: object) -> None:
        self.stop_now = self.stop_now or f"received {signal.Signals(number).name}"

    def _read(self, _events: int) -> None:
        try:
            data = os.read(self._source, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.stop_now = self.stop_now or "the controller is gone"
            # An ended input would wake the loop forever.
            if self._loop is not None:
                self._loop.remove(self._source)
            return
        self._unfinished += data
        self._heed()

    def _heed(self) -> None:
        *lines, self._unfinished = self._unfinished.split(b"\n")
        if len(self._unfinished) > MAX_COMMAND_BYTES:
            lines.append(self._unfinished)
            self._unfinished = b""
        for line in lines:
            self._obey(line)

    def _obey(self, line: bytes) -> None:
        try:
            command = json.loads(line)["command"]
        except (ValueError, TypeError, KeyError, RecursionError):
            command = None
        if command == "renew":
            self.renew = True
        elif command == "stop":
            self.stop = self.stop or "stopped"
        elif command == "conclude":
            # What is under way would not count any more.
            self.stop_now = self.stop_now or "the verdict is in"
        else:
            self.fault = f"not a command: {line[:200]!r}"
            self.stop_now = self.stop_now or self.fault
