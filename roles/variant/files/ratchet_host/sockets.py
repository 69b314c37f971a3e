"""The sockets that a configuration listens on, so that what opens and closes them can be told from what does not.

At a reload nginx keeps a socket whose address stays, and closes one that goes; with it go the connections that wait in
its queue. With `reuseport` each worker has one. Options are applied to a socket that stays, or silently are not:
what differs in them is not switched to and fro under users either.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ratchet_host.errors import Refused
from ratchet_host.language import Directive
from ratchet_host.listeners import servers, split_address
from ratchet_host.tree import Tree

OPTION = re.compile(
    r"(backlog|fastopen|rcvbuf|sndbuf|setfib|accept_filter|so_keepalive|ipv6only)=.*|deferred|bind|reuseport"
)
# What nginx does where nothing is said.
USUAL = {"ipv6only=on", "so_keepalive=off"}
KINDS = ("http", "stream", "mail")


def listening(directives: list[Directive]) -> list[str]:
    """Each socket as `protocol address option...`, sorted; last the number of workers, where each has its own."""
    found: dict[str, set[str]] = {}
    for kind in KINDS:
        for server in servers(directives, kind):
            listens = [directive.arguments for directive in server.block or [] if directive.name == "listen"]
            # Nginx listens on port 80 for an http server that says nothing.
            for words in listens or ([["80"]] if kind == "http" else []):
                if not words:
                    continue
                protocol = "udp" if {"udp", "quic"} & set(words[1:]) else "tcp"
                options = {word for word in words[1:] if OPTION.fullmatch(word)} - USUAL
                for address in _addresses(words[0]):
                    found.setdefault(f"{protocol} {address}", set()).update(options)
    lines = sorted(" ".join([socket, *sorted(options)]) for socket, options in found.items())
    if any("reuseport" in options for options in found.values()):
        workers = [directive.arguments for directive in directives if directive.name == "worker_processes"]
        lines.append(f"workers {' '.join(workers[-1]) if workers else '1'}")
    return lines


def fingerprint(directives: list[Directive]) -> str:
    """The same for two configurations only if a reload from one to the other leaves all sockets as they are."""
    return hashlib.sha256("\n".join(listening(directives)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def sockets_of(path: Path) -> str | None:
    """The fingerprint of a file with its includes; None where it cannot be read as nginx does."""
    try:
        return fingerprint(Tree(path).directives)
    except Refused:
        return None


def _addresses(address: str) -> list[str]:
    """Each address that the first word of a `listen` names; as it stands where it is none that we understand."""
    try:
        host, ports = split_address(address)
    except Refused:
        return [address]
    if not ports:
        return [host]
    host = {"0.0.0.0": "*"}.get(host, host.lower())  # noqa: S104 - read, never bound
    return [f"{host}:{port}" for port in ports]
