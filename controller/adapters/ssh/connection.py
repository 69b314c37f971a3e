"""One authenticated connection to a host."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry

from controller.adapters.files.atomic import replacing
from controller.adapters.files.documents import is_there
from controller.adapters.files.known_hosts import trusted_keys
from controller.adapters.patience import spread
from controller.adapters.secrets import end_of
from controller.adapters.ssh.failures import SSH_PORT, ConnectionBroken, UnknownHostKey, classify, telling
from controller.adapters.ssh.line import Line
from controller.adapters.ssh.stream import PACE_SECONDS, Heard, Stream, chunks, close_quietly, end_input, exit_status
from controller.model.errors import BadInput, HostFailed, RatchetError, Transient
from controller.model.fleet import Host

BANNER_SECONDS = 8.0
# The banner and the keys. When it ends first, paramiko goes on to log in and complains of something else.
NEGOTIATION_SECONDS = 12.0
AUTHENTICATION_SECONDS = 15.0
# More for a host behind another: that one is connected to and logged into first.
PROXY_SECONDS = 20.0
CHANNEL_SECONDS = 15.0
KEEPALIVE_SECONDS = 15
BACKOFF_SECONDS = (0.5, 1.5)
SEND_SECONDS = 10.0
LARGEST_OUTPUT_BYTES = 16 << 20
LARGEST_DOWNLOAD_BYTES = 1 << 30
# 8 KiB/s: an old ISDN line takes it, and a host that drips is given up within a minute.
LEAST_DOWNLOADED = int(PACE_SECONDS) * 8 << 10

# A command, as far as a log tells it.
LONGEST_LOGGED = 300

log = logging.getLogger(__name__)
# Its tracebacks are for a log: without one, they are not for stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# What paramiko would still speak, for the sake of old servers: Debian 12's sshd speaks better. What is left encrypts
# before it authenticates, and agrees on keys over curve25519, ML-KEM or a large group.
DISABLED_ALGORITHMS = {
    "kex": [
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group-exchange-sha256",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
    ],
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
    "macs": ["hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96", "hmac-sha2-256", "hmac-sha2-512"],
}


class Connection:
    """Runs commands on one host."""

    def __init__(self, client: paramiko.SSHClient, host: Host) -> None:
        self._client = client
        self._host = host

    def run(self, command: str, timeout: float) -> tuple[int, str, str]:
        """Run a command to its end within `timeout` seconds; returns (exit code, stdout, stderr).

        Raises HostFailed when it takes longer, floods, or the connection breaks.
        """
        taken: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        with self._started(command) as (channel, heard):
            end_input(channel, self._host.name)
            deadline = time.monotonic() + timeout
            for source, data in chunks(channel, self._host.name, heard, idle=timeout, deadline=deadline):
                taken[source] += data
                if len(taken[source]) > LARGEST_OUTPUT_BYTES:
                    raise HostFailed("the command wrote more than 16 MiB", where=self._host.name)
            status = exit_status(channel, self._host.name)
        return status, taken["out"].decode(errors="replace"), taken["err"].decode(errors="replace")

    @contextmanager
    def stream(self, command: str) -> Iterator[Stream]:
        """A command to talk with while it runs. Raises HostFailed."""
        with self._started(command) as (channel, heard), Stream(channel, self._host.name, heard) as stream:
            yield stream

    def download(self, command: str, local: Path, *, idle: float = 30.0, limit: int = LARGEST_DOWNLOAD_BYTES) -> None:
        """Run a command and put what it writes to stdout into `local`, whole or not at all.

        Args:
            idle: the longest silence, in seconds.
            limit: the largest file, in bytes.

        Raises HostFailed when the command fails, floods or drips, the connection breaks, or the disk here is full.
        """
        with replacing(local) as file, self._started(command) as (channel, heard):
            end_input(channel, self._host.name)
            parts = chunks(channel, self._host.name, heard, idle=idle, deadline=float("inf"), least=LEAST_DOWNLOADED)
            for source, data in parts:
                if source == "err":
                    continue
                if heard.out > limit:
                    raise HostFailed(f"the command wrote more than {limit} bytes", where=self._host.name)
                file.write(data)
            status = exit_status(channel, self._host.name)
            if status != 0:
                raise HostFailed(f"`{command}` ended with {status}: {heard.reason()}", where=self._host.name)

    @contextmanager
    def _started(self, command: str) -> Iterator[tuple[paramiko.Channel, Heard]]:
        transport = self._client.get_transport()
        step = "is the host overloaded, or its account locked? controller status shows it"
        with telling("the host does not start a command", self._host.name, step):
            if transport is None:
                raise paramiko.SSHException("the connection is closed")
            channel = transport.open_session(timeout=CHANNEL_SECONDS)
            channel.settimeout(SEND_SECONDS)
            channel.exec_command(command)
        heard, started = Heard(), time.monotonic()
        try:
            yield channel, heard
        finally:
            close_quietly(channel)
            log.info(
                "%s: `%s`: %s in %.2f s, %d bytes; %d on stderr: %s",
                self._host.name,
                command[:LONGEST_LOGGED],
                f"exit {channel.exit_status}" if channel.exit_status >= 0 else "no exit code",
                time.monotonic() - started,
                heard.out,
                heard.err,
                end_of(heard.said.decode(errors="replace")) or "nothing",
            )


@contextmanager
def connect(
    host: Host, user: str, *, attempts: int = len(BACKOFF_SECONDS) + 1, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Connection]:
    """A connection as `user`, closed when the block ends. What may pass by itself is tried again, with backoff.

    Raises:
        HostFailed: unreachable, an unknown or another host key, the key refused; says which and what to do.
        BadInput: the fleet's key or known_hosts cannot be read.
    """
    key = _load_key(host.key_file)
    client, line = _connected(host, user, key, attempts=attempts, sleep=sleep)
    try:
        yield Connection(client, host)
    finally:
        with suppress(Exception):
            client.close()
        line.close()


def ask(
    host: Host,
    user: str,
    command: str,
    *,
    timeout: float,
    attempts: int = len(BACKOFF_SECONDS) + 1,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, str, str]:
    """Run one command that may as well run twice: once more when the connection breaks under it.

    Returns (exit code, stdout, stderr). Raises as `connect` and `Connection.run` do.
    """
    for pause in spread(BACKOFF_SECONDS[:1] if attempts > 1 else ()):
        try:
            with connect(host, user, attempts=attempts, sleep=sleep) as connection:
                return connection.run(command, timeout=timeout)
        except ConnectionBroken as error:
            log.warning("%s: %s; once more in %.1f s", host.name, error.what, pause)
            sleep(pause)
    with connect(host, user, attempts=attempts, sleep=sleep) as connection:
        return connection.run(command, timeout=timeout)


def _connected(
    host: Host, user: str, key: paramiko.PKey, *, attempts: int, sleep: Callable[[float], None]
) -> tuple[paramiko.SSHClient, Line]:
    for attempt in range(1, attempts + 1):
        started = time.monotonic()
        try:
            client = _connect_once(host, user, key)
            log.debug("%s: connected as %s in %.2f s", host.name, user, time.monotonic() - started)
            return client
        except Transient as error:
            if attempt == attempts:
                raise HostFailed(
                    f"{error.what} (tried {attempts} times)", where=error.where, next_step=error.next_step
                ) from None
            pause = next(spread([BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS)) - 1]]))
            log.warning("%s: attempt %d of %d failed, again in %.1f s", host.name, attempt, attempts, pause)
            sleep(pause)
    raise ValueError("attempts must be at least 1")


def _connect_once(host: Host, user: str, key: paramiko.PKey) -> tuple[paramiko.SSHClient, Line]:
    client = paramiko.SSHClient()
    line: Line | None = None
    patience = PROXY_SECONDS if host.proxy else 0.0
    try:
        _load_known_hosts(client, host.known_hosts)
        client.set_missing_host_key_policy(UnknownHostKey)
        line = Line(host)
        client.connect(
            # Address and port are for known_hosts only: the line is open.
            host.known_as or host.address,
            port=SSH_PORT if host.known_as else host.port,
            username=user,
            pkey=key,
            sock=line.socket,
            allow_agent=False,
            look_for_keys=False,
            timeout=NEGOTIATION_SECONDS + patience,
            banner_timeout=BANNER_SECONDS + patience,
            auth_timeout=AUTHENTICATION_SECONDS,
            channel_timeout=CHANNEL_SECONDS,
            disabled_algorithms=DISABLED_ALGORITHMS,
        )
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(KEEPALIVE_SECONDS)
    except RatchetError:
        client.close()
        if line is not None:
            line.close()
        raise
    except Exception as error:  # what a server sends may raise anything in paramiko's parsers
        client.close()
        complaint = ""
        if line is not None:
            line.socket.close()
            complaint = line.complaint()
            line.close()
        failure = classify(error, host, user, complaint)
        log.warning("%s: %s", failure.where, failure.what)
        raise failure from None
    return client, line


def _load_key(path: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException:
        what, step = "the SSH key has a passphrase", f"give the fleet a key of its own: ssh-keygen -p -f {path}"
    except FileNotFoundError:
        what, step = (
            "the SSH key is missing",
            "controller provision writes it; a static fleet names it in its inventory",
        )
    except Exception as error:  # paramiko lets errors of the key's own parser through
        what, step = f"the SSH key cannot be read: {error}", "it must be an OpenSSH private key of this user (0600)"
    raise BadInput(what, where=str(path), next_step=step)


def _load_known_hosts(client: paramiko.SSHClient, path: Path) -> None:
    next_step = "one line a host: ADDRESS ssh-ed25519 AAAA..."
    if not is_there(path):
        raise BadInput("there is no known_hosts: no host key is trusted", where=str(path), next_step=next_step)
    known = client.get_host_keys()
    # The first of several keys of one type counts.
    for line in reversed(trusted_keys(path)):
        try:
            entry = HostKeyEntry.from_line(line)
        except paramiko.SSHException:
            continue
        except Exception as error:  # paramiko lets errors of base64 and of the key's own parser through
            raise BadInput(f"known_hosts cannot be read: {error}", where=str(path), next_step=next_step) from None
        if entry is not None:
            for name in entry.hostnames:
                known.add(name, entry.key.get_name(), entry.key)
