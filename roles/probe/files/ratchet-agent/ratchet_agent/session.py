"""The session: root's half of a trial."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections import deque
from typing import Any

from ratchet_agent.errors import AgentError
from ratchet_agent.loop import WAKE_SECONDS, Loop

# How long the session may take: a switch waits for nginx, all else is a look and an answer. One that is silent for
# longer hangs, and the controller, which lives, should put the baseline back before the lease has to.
SESSION_SECONDS = 60.0
ANSWER_SECONDS = 4.0
QUICK_COMMANDS = frozenset({"renew", "status", "metrics"})


class Session:
    """`ratchet-host session`, which switches configurations under the lease; one JSON line each way a command.

    Attributes:
        confirmed: the host's baseline.
        failure: why there is no session any more, or why it may not be relied on; empty while all is well.
    """

    def __init__(self, loop: Loop, command: list[str], lease_seconds: int) -> None:
        self._loop = loop
        self._answers: dict[str, dict[str, Any]] = {}
        self._gone = False
        self._awaited: deque[str] = deque()
        self._due = 0.0
        self._hangs = False
        self._unfinished = b""
        self._complaint = b""
        self._renewed = time.monotonic()
        self._renew_seconds = lease_seconds / 3
        self.failure = ""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # A terminal's interrupt reaches the agent alone, which ends the session in good order.
                start_new_session=True,
            )
        except OSError as error:
            raise AgentError("session", f"{command[0]} could not be started: {error.strerror}") from None
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101 - narrows the type
        self._input = self._process.stdin
        self._output = self._process.stdout.fileno()
        self._errors = self._process.stderr.fileno()
        loop.add(self._output, self._read)
        loop.add(self._errors, self._read_complaint)
        self._expect("ready")
        self.confirmed = str(self._await("ready", "session").get("confirmed"))

    def ask(self, command: str, code: str = "session", **values: object) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises AgentError(code) when it failed, or the session is gone."""
        self._send(command, values)
        return self._await(command, code)

    def renew(self) -> None:
        """Pass a heartbeat on; its answer is looked at when it comes."""
        self._renewed = time.monotonic()
        self._send("renew", {})

    def check(self) -> None:
        """Raises AgentError when the session is gone, or has owed an answer for too long."""
        overdue = self._awaited and time.monotonic() > self._due
        # An answer that waits to be read was in time: it was this process that stood still.
        if overdue and not self.failure and not select.select([self._output], [], [], 0)[0]:
            self._hangs = True
            self.failure = f"the session did not answer {self._awaited[0]!r} within {self._patience():g} s"
        if self.failure:
            raise AgentError("session", self.failure)

    def renewal_is_due(self) -> bool:
        """Whether a heartbeat may wait no longer."""
        return time.monotonic() - self._renewed > self._renew_seconds

    def end(self) -> dict[str, Any] | None:
        """Put the baseline back and leave; None when the session can no longer say whether it did."""
        restored = None
        if self._hangs:
            # Not waited for: should it come round, it restores at this end of its input; the lease stands behind it.
            with contextlib.suppress(OSError):
                self._input.close()
            return None
        if not self._gone:
            # Whatever made the session unreliable, it may still say how it ended.
            self.failure = ""
        with contextlib.suppress(AgentError):
            answer = self.ask("end")
            restored = {"configuration": answer.get("configuration"), "verified": answer.get("verified") is True}
        with contextlib.suppress(OSError):
            self._input.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Not killed after that: it is still restoring, and the lease stands behind it.
            self._process.wait(timeout=SESSION_SECONDS if restored is None else 10)
        self._loop.remove(self._output)
        self._loop.remove(self._errors)
        return restored

    def _expect(self, command: str) -> None:
        self._awaited.append(command)
        if len(self._awaited) == 1:
            self._due = time.monotonic() + self._patience()

    def _patience(self) -> float:
        """For the answer that comes next."""
        return ANSWER_SECONDS if self._awaited[0] in QUICK_COMMANDS else SESSION_SECONDS

    def _send(self, command: str, values: dict[str, object]) -> None:
        self._expect(command)
        try:
            self._input.write(json.dumps({"command": command, **values}).encode() + b"\n")
        except OSError:
            self.failure = self.failure or self._ended()

    def _await(self, command: str, code: str) -> dict[str, Any]:
        while command not in self._answers:
            self.check()
            self._loop.step(WAKE_SECONDS)
        answer = self._answers.pop(command)
        if answer.get("ok") is not True:
            raise AgentError(code, f"{command}: {answer.get('error', 'failed without saying why')!s:.1000}")
        return answer

    def _read(self, _events: int) -> None:
        data = os.read(self._output, 65_536)
        if not data:
            self._loop.remove(self._output)
            self._gone = True
            self.failure = self.failure or self._ended()
            return
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or not self._awaited:
            self.failure = self.failure or f"the session wrote something that was not asked for: {line[:200]!r}"
            return
        command = self._awaited.popleft()
        if self._awaited:
            self._due = time.monotonic() + self._patience()
        if command != "renew":
            self._answers[command] = answer
        elif answer.get("ok") is not True:
            self.failure = self.failure or f"the lease could not be renewed: {answer.get('error', '')!s:.500}"

    def _read_complaint(self, _events: int) -> None:
        data = os.read(self._errors, 65_536)
        if not data:
            self._loop.remove(self._errors)
        self._complaint = (self._complaint + data)[-500:]

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        while select.select([self._errors], [], [], 0)[0] and (data := os.read(self._errors, 65_536)):
            self._complaint = (self._complaint + data)[-500:]
        said = self._complaint.decode("utf-8", errors="replace").strip()
        return f"the session ended (exit code {self._process.poll()}): {said or 'it did not say why'}"
