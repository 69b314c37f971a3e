"""What a remote command says, chunk by chunk and line by line, with a limit on every wait and every size."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Literal

import paramiko

from controller.adapters.ssh.failures import ConnectionBroken
from controller.model.errors import HostFailed

CHUNK_BYTES = 65536
LONGEST_LINE_BYTES = 4 << 20
STDERR_KEPT_BYTES = 4096
EXIT_STATUS_SECONDS = 10.0

Source = Literal["out", "err"]


def chunks(channel: paramiko.Channel, host: str, *, idle: float, deadline: float) -> Iterator[tuple[Source, bytes]]:
    """Both outputs of a command as they come, to their end.

    Args:
        idle: the longest silence, in seconds.
        deadline: by the monotonic clock.

    Raises HostFailed when the command is silent or running for too long.
    """
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    while True:
        left = min(idle, deadline - time.monotonic())
        if left <= 0 or not poller.poll(left * 1000):
            close_quietly(channel)
            raise HostFailed(
                f"no answer within {idle:.0f} s",
                where=host,
                next_step="is the host overloaded or cut off? look at it, then run the command again",
            )
        if channel.recv_ready():
            yield "out", channel.recv(CHUNK_BYTES)
        elif channel.recv_stderr_ready():
            yield "err", channel.recv_stderr(CHUNK_BYTES)
        elif channel.eof_received or channel.closed:
            return
        else:
            # The descriptor is raised a moment before the flags are.
            time.sleep(0.001)


def close_quietly(channel: paramiko.Channel) -> None:
    """Close a channel; that its connection is gone already is fine."""
    with suppress(paramiko.SSHException, OSError, EOFError):
        channel.close()


def exit_status(channel: paramiko.Channel, host: str) -> int:
    """The command's exit code; call it when both outputs have ended. Raises HostFailed when there is none."""
    channel.status_event.wait(EXIT_STATUS_SECONDS)
    status = channel.exit_status
    if not channel.status_event.is_set() or status < 0:
        raise ConnectionBroken(
            "the connection broke before the command had ended",
            where=host,
            next_step="is the host up? controller status shows it; then run the command again",
        )
    return status


class Stream:
    """A running command that is talked to in lines. Closing it ends the command's input; that is its sign to stop."""

    def __init__(self, channel: paramiko.Channel, host: str) -> None:
        self._channel = channel
        self._host = host
        self._stderr = b""
        self._closed_here = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, line: str) -> None:
        """Send one line. Raises HostFailed when the command does not take it. Safe from any thread."""
        try:
            self._channel.sendall(line.encode() + b"\n")
        except (OSError, EOFError) as error:
            raise HostFailed(
                f"the command takes no input: {error or 'it does not read'}",
                where=self._host,
                next_step="is the host up? controller status shows it",
            ) from None

    def lines(self, timeout: float) -> Iterator[str]:
        """The lines of its output to the end, without their newlines; undecodable bytes are replaced.

        Args:
            timeout: the longest silence, in seconds.

        Ends quietly when this side has closed the stream. Raises HostFailed when the command is silent for too long,
        when the connection breaks, or when the command fails (with what it said on stderr).
        """
        pending = b""
        try:
            for source, data in chunks(self._channel, self._host, idle=timeout, deadline=float("inf")):
                if source == "err":
                    self._stderr = (self._stderr + data)[-STDERR_KEPT_BYTES:]
                    continue
                *whole, pending = (pending + data).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace")
                if len(pending) > LONGEST_LINE_BYTES:
                    raise HostFailed("the command wrote an endless line", where=self._host)
        except HostFailed:
            if self._closed_here:
                return
            raise
        if self._closed_here:
            return
        if pending:
            yield pending.decode(errors="replace")
        status = exit_status(self._channel, self._host)
        if status != 0:
            said = self._stderr.decode(errors="replace").strip() or "it gave no reason"
            raise HostFailed(f"the command ended with {status}: {said}", where=self._host)

    def close(self) -> None:
        """End the conversation. Safe from any thread, and more than once."""
        self._closed_here = True
        close_quietly(self._channel)
