"""An SSH server in this process, which speaks the real protocol; it may be a jump host to others."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import paramiko


class Shell(paramiko.ServerInterface):
    """Accepts one key, and runs each command in a shell."""

    def __init__(self, allowed: str, leads_to: int) -> None:
        self._allowed = allowed
        self._leads_to = leads_to

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "ratchet" and f"{key.get_name()} {key.get_base64()}" == self._allowed
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return paramiko.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self,
        chanid: int,  # noqa: ARG002
        origin: tuple[str, int],  # noqa: ARG002
        destination: tuple[str, int],  # noqa: ARG002
    ) -> int:
        return paramiko.OPEN_SUCCEEDED if self._leads_to else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_execute, args=(channel, command.decode()), daemon=True).start()
        return True


# A command that ends with this has its connection broken.
BREAKS = 99
# paramiko's server tells the client that a command has started after it was started, so a quick one could end sooner.
# Who ends their input was told; who does not has this time.
TOLD_SECONDS = 0.5


def _execute(channel: paramiko.Channel, command: str) -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = threading.Thread(target=_copy, args=(process.stderr, channel.sendall_stderr), daemon=True)
    inputs = threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True)
    errors.start()
    inputs.start()
    _copy(process.stdout, channel.sendall)
    errors.join()
    inputs.join(TOLD_SECONDS)
    # A test may have hung up meanwhile.
    with suppress(EOFError, OSError):
        status = process.wait()
        if status == BREAKS:
            channel.get_transport().close()
        channel.send_exit_status(status)
        channel.close()


def _copy(source: object, send: object) -> None:
    try:
        while data := source.read1(32768):  # type: ignore[attr-defined]
            send(data)  # type: ignore[operator]
    except (OSError, EOFError):
        return


def _feed(channel: paramiko.Channel, target: object) -> None:
    try:
        while data := channel.recv(32768):
            target.write(data)  # type: ignore[attr-defined]
            target.flush()  # type: ignore[attr-defined]
        target.close()  # type: ignore[attr-defined]
    except (OSError, EOFError):
        return


@contextmanager
def ssh_server(host_key: paramiko.PKey, allowed: str, *, leads_to: int = 0) -> Iterator[int]:
    """Its port. `leads_to`: the port that every forwarding ends at, whatever is asked for."""
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(host_key)
            transports.append(transport)
            try:
                transport.start_server(server=Shell(allowed, leads_to))
            except (paramiko.SSHException, EOFError, OSError):
                continue
            if leads_to:
                threading.Thread(target=_forward, args=(transport, leads_to), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
        for transport in transports:
            transport.close()


def _forward(transport: paramiko.Transport, port: int) -> None:
    channel = transport.accept(20)
    if channel is None:
        return
    with socket.create_connection(("127.0.0.1", port)) as target:
        there = threading.Thread(target=_pass_on, args=(channel.recv, target.sendall), daemon=True)
        there.start()
        _pass_on(target.recv, channel.sendall)
        channel.close()
        there.join(5)


def _pass_on(receive: Callable[[int], bytes], send: Callable[[bytes], None]) -> None:
    with suppress(OSError, EOFError):
        while data := receive(32768):
            send(data)
