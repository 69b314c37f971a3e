"""What a remote command says, chunk by chunk and line by line, with a limit on every wait and every size."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import paramiko

from controller.adapters.ssh.failures import LOOK, ConnectionBroken, telling
from controller.model.errors import HostFailed

CHUNK_BYTES = 65536
LONGEST_LINE_BYTES = 4 << 20
STDERR_KEPT_BYTES = 4096
EXIT_STATUS_SECONDS = 10.0
PACE_SECONDS = 60.0
BROKEN = "the connection broke under the command"

Source = Literal["out", "err"]


@dataclass
class Heard:
    """How many bytes a command has written, and the end of what it said on stderr."""

    out: int = 0
    err: int = 0
    said: bytes = b""

    def take(self, source: Source, data: bytes) -> None:
        if source == "out":
            self.out += len(data)
        else:
            self.err += len(data)
            self.said = (self.said + data)[-STDERR_KEPT_BYTES:]

    def reason(self) -> str:
        return self.said.decode(errors="replace").strip() or "it gave no reason"


def chunks(
    channel: paramiko.Channel, host: str, heard: Heard, *, idle: float, deadline: float, least: int = 0
) -> Iterator[tuple[Source, bytes]]:
    """Both outputs of a command as they come, to their end.

    Args:
        heard: told of each chunk.
        idle: the longest silence, in seconds.
        deadline: by the monotonic clock.
        least: bytes that have to come within each PACE_SECONDS: a host that drips is never silent.

    Raises HostFailed when the command is silent, running or dripping for too long, or when the connection breaks.
    """
    poller = select.poll()
    with telling(BROKEN, host):
        poller.register(channel.fileno(), select.POLLIN)
    started = time.monotonic()
    taken, waited = 0, 0.0
    while True:
        now = time.monotonic()
        left = min(idle, deadline - now)
        if left <= 0 or not poller.poll(left * 1000):
            close_quietly(channel)
            talks = left < idle < deadline - started
            raise HostFailed(
                f"not done within {deadline - started:.0f} s" if talks else f"no answer within {idle:.0f} s",
                where=host,
                next_step="is the host overloaded or cut off? look at it, then run the command again",
            )
        # Of the host's time, not of whoever takes what it sends.
        waited += time.monotonic() - now
        with telling(BROKEN, host):
            chunk = _next(channel)
        if chunk is not None:
            taken += len(chunk[1])
            heard.take(*chunk)
            yield chunk
            if waited > PACE_SECONDS:
                _check_pace(channel, host, taken, least)
                taken, waited = 0, 0.0
        elif channel.eof_received or channel.closed:
            return
        else:
            # The descriptor is raised a moment before the flags are.
            time.sleep(0.001)


def _check_pace(channel: paramiko.Channel, host: str, taken: int, least: int) -> None:
    """Raises HostFailed when fewer bytes have come than are expected, unless they were the last."""
    if taken >= least or (channel.eof_received and not channel.recv_ready()):
        return
    close_quietly(channel)
    raise HostFailed(
        f"it sends too slowly: {taken} bytes within {PACE_SECONDS:.0f} s, at least {least} are expected",
        where=host,
        next_step="is the host overloaded, or the line to it? look at it, then run the command again",
    )


def _next(channel: paramiko.Channel) -> tuple[Source, bytes] | None:
    if channel.recv_ready():
        return "out", channel.recv(CHUNK_BYTES)
    if channel.recv_stderr_ready():
        return "err", channel.recv_stderr(CHUNK_BYTES)
    return None


def close_quietly(channel: paramiko.Channel) -> None:
    """Close a channel; that its connection is gone already is fine."""
    with suppress(Exception):
        channel.close()


def end_input(channel: paramiko.Channel, host: str) -> None:
    """Tell the command that no input will come. Raises HostFailed."""
    with telling(BROKEN, host):
        channel.shutdown_write()


def exit_status(channel: paramiko.Channel, host: str) -> int:
    """The command's exit code; call it when both outputs have ended. Raises HostFailed when there is none."""
    channel.status_event.wait(EXIT_STATUS_SECONDS)
    status = channel.exit_status
    if not channel.status_event.is_set() or status < 0:
        raise ConnectionBroken(
            "the connection broke before the command had ended",
            where=host,
            next_step=LOOK,
        )
    return status


class Stream:
    """A running command that is talked to in lines. Closing it ends the command's input; that is its sign to stop."""

    def __init__(self, channel: paramiko.Channel, host: str, heard: Heard) -> None:
        self._channel = channel
        self._host = host
        self._heard = heard
        self._closed_here = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, line: str) -> None:
        """Send one line. Raises HostFailed when the command does not take it. Safe from any thread."""
        text = line.encode() + b"\n"
        with telling("the command takes no input", self._host):
            self._channel.sendall(text)

    def lines(self, timeout: float, *, longest: float = float("inf")) -> Iterator[str]:
        """The lines of its output to the end, without their newlines; undecodable bytes are replaced.

        Args:
            timeout: the longest silence, in seconds.
            longest: seconds from now to its end, where the caller knows them.

        Ends quietly when this side has closed the stream. Raises HostFailed when the command is silent for too long,
        when the connection breaks, or when the command fails (with what it said on stderr).
        """
        pending = b""
        deadline = time.monotonic() + longest
        try:
            for source, data in chunks(self._channel, self._host, self._heard, idle=timeout, deadline=deadline):
                if source == "err":
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
            raise HostFailed(f"the command ended with {status}: {self._heard.reason()}", where=self._host)

    def close(self) -> None:
        """End the conversation. Safe from any thread, and more than once."""
        self._closed_here = True
        close_quietly(self._channel)
