"""Why a connection could not be made, and what the operator should do about it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from controller.model.errors import HostFailed, RatchetError, Transient
from controller.model.fleet import Host

SSH_PORT = 22
LOOK = "is the host up? controller status shows it; then run the command again"


class ConnectionBroken(HostFailed):
    """The connection broke under a command, which may have run, or not."""


@contextmanager
def telling(what: str, host: str, next_step: str = LOOK) -> Iterator[None]:
    """Whatever is raised inside and is none of ours becomes ConnectionBroken; `what`: `the host does not start it`.

    What a host sends may raise anything: paramiko lets errors of its parsers through. For calls of paramiko only.
    """
    try:
        yield
    except RatchetError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ConnectionBroken(f"{what}: {reason}", where=host, next_step=next_step) from None


class HostKeyUnknown(paramiko.SSHException):
    """The host's key is not in known_hosts."""

    def __init__(self, key: paramiko.PKey) -> None:
        super().__init__("unknown host key")
        self.key = key


class UnknownHostKey(paramiko.MissingHostKeyPolicy):
    """Trusts nobody on first use."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        raise HostKeyUnknown(key)


def classify(error: Exception, host: Host, user: str, complaint: str = "") -> RatchetError:
    """Transient for what may pass by itself, HostFailed for what will not.

    `complaint`: of the command that the host is reached through.
    """
    known_as = host.known_as or (host.address if host.port == SSH_PORT else f"[{host.address}]:{host.port}")
    place = f"{host.name} ({host.address} port {host.port}{', behind a jump host' if host.proxy else ''})"
    if isinstance(error, HostKeyUnknown):
        return HostFailed(
            f"its host key {error.key.fingerprint} is not in known_hosts",
            where=place,
            next_step="compare it with the host's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); if it is "
            f"the same, add `{known_as} {error.key.get_name()} {error.key.get_base64()}` to {host.known_hosts}",
        )
    if isinstance(error, paramiko.BadHostKeyException):
        return HostFailed(
            f"WRONG HOST KEY: it shows {error.key.fingerprint}, known_hosts has {error.expected_key.fingerprint}; "
            "somebody may be in between, or the host was set up anew",
            where=place,
            next_step=f"find out which; only if it was set up anew, replace its line in {host.known_hosts}",
        )
    if isinstance(error, IncompatiblePeer):
        return HostFailed(
            f"its SSH server speaks no algorithm that is safe enough: {error}",
            where=place,
            next_step="update the host's openssh-server",
        )
    if isinstance(error, paramiko.AuthenticationException) and "timeout" not in str(error).lower():
        return HostFailed(
            f"it refuses the key {host.key_file} for user {user}",
            where=place,
            next_step="set the host up (playbooks/site.yml authorises the key), or name the right key and user in the "
            "inventory",
        )
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        return HostFailed(
            f"its address cannot be resolved: {error.strerror}",
            where=place,
            next_step="mend ansible_host in the inventory",
        )
    step = "is the host up, its address right, and port 22 open for this machine?"
    if host.proxy:
        step = f"try the way to it: {host.proxy}"
    return Transient(f"unreachable over SSH: {complaint or _reason(error)}", where=place, next_step=step)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if not isinstance(error, (paramiko.SSHException, OSError, EOFError)):
        return f"what answers there does not speak SSH as it should ({type(error).__name__}: {error})"
    text = getattr(error, "strerror", None) or str(error)
    # paramiko's words for no greeting at all, and for keys that were not agreed on in time.
    if "banner" in text or text == "No existing session":
        return "it accepts connections, but its SSH server does not answer"
    return text or "it closed the connection"
