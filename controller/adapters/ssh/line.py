"""The line to a host's SSH server: a TCP connection, or a command whose stdin and stdout are one (a jump host)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress

from controller.adapters.secrets import is_secret
from controller.model.fleet import Host

CONNECT_SECONDS = 8.0
# What was sent and not acknowledged for this long means that the host is cut off.
UNACKNOWLEDGED_MS = 30_000
# A command whose line is closed has nothing left to do.
END_SECONDS = 2.0
SHOWN_BYTES = 1000


class Line:
    """An open line; `socket` is for paramiko. Raises OSError where there is none."""

    def __init__(self, host: Host) -> None:
        self._command: subprocess.Popen[bytes] | None = None
        if host.proxy:
            self._start(host.proxy)
        else:
            self.socket = socket.create_connection((host.address, host.port), timeout=CONNECT_SECONDS)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)

    def _start(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the line
        try:
            # In a session of its own: Ctrl-C does not cut the line to hosts that are to be put back, and no password is
            # asked for on the terminal.
            self._command = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                env={name: value for name, value in os.environ.items() if not is_secret(name)},
                start_new_session=True,
            )
        except OSError:
            self.socket.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    def complaint(self) -> str:
        """What the command has written to stderr, once it has ended; empty for a direct line."""
        if self._command is None:
            return ""
        with suppress(subprocess.TimeoutExpired):
            self._command.wait(END_SECONDS)
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - SHOWN_BYTES))
        return " ".join(self._errors.read().decode(errors="replace").split())

    def close(self) -> None:
        """Safe to call twice."""
        self.socket.close()
        if self._command is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._command.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._command.wait(END_SECONDS)
                break
        self._command = None
        self._errors.close()
