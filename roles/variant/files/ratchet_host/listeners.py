"""Where a configuration listens: its servers, their addresses and ports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ratchet_host.errors import Refused
from ratchet_host.language import Directive


class Listener:
    """One address that nginx listens on."""

    def __init__(self, host: str, port: int, flags: list[str], *, status: bool = False) -> None:
        self.host = host
        self.port = port
        self.flags = flags
        self.status = status

    @property
    def speaks_plain_http(self) -> bool:
        return not {"ssl", "quic", "proxy_protocol", "udp"} & set(self.flags)


LOOPBACK = {"127.0.0.1", "localhost"}
ANY = {"*", "0.0.0.0", "[::]"}  # noqa: S104 - read, never bound
_ADDRESS = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?([0-9]{1,5})(?:-([0-9]{1,5}))?")


def split_address(address: str, default_port: int = 80) -> tuple[str, range]:
    """Host ("*" for any) and ports of a listen directive's first word; ("unix:...", no port) for a socket.

    Raises Refused when nginx would not understand it either.
    """
    if address.startswith("unix:"):
        return address, range(0)
    match = _ADDRESS.fullmatch(address)
    if match is None:
        if not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._*-]+", address):
            raise Refused(f"listen {address}: not an address")
        return address, range(default_port, default_port + 1)
    first = int(match[2])
    last = int(match[3] or first)
    if not 1 <= first <= last <= 65535:
        raise Refused(f"listen {address}: not a port")
    return match[1] or "*", range(first, last + 1)


def rank(host: str) -> int:
    if host in LOOPBACK:
        return 2
    return 1 if host in ANY else 0


def servers(directives: list[Directive], kind: str = "http") -> Iterator[Directive]:
    """The server blocks of a tree's `http` (or `stream`) block."""
    for outer in directives:
        if outer.name == kind and outer.block is not None:
            for inner in outer.block:
                if inner.name == "server" and inner.block is not None:
                    yield inner


def holds(directives: list[Directive], name: str) -> bool:
    """Whether a directive of that name is in there, at any depth."""
    return any(
        directive.name == name or (directive.block is not None and holds(directive.block, name))
        for directive in directives
    )


def listeners(directives: list[Directive]) -> list[Listener]:
    """The TCP addresses of all http servers, each once; those that tell nginx's status first."""
    found: dict[tuple[str, int], Listener] = {}
    for server in servers(directives):
        block = server.block or []
        status = holds(block, "stub_status")
        listens = [directive for directive in block if directive.name == "listen"]
        for words in [directive.arguments for directive in listens] or [["80"]]:
            if not words:
                continue
            host, ports = split_address(words[0])
            for port in ports[:16]:
                known = found.setdefault((host, port), Listener(host, port, [], status=status))
                known.flags += words[1:]
                known.status = known.status and status
    return sorted(found.values(), key=lambda listener: not listener.status)
