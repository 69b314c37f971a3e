"""The text of a shadow instance: a configuration rewritten so that it meets the live one nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from ratchet_host.errors import Refused
from ratchet_host.language import Directive, plain, quote, render, statement
from ratchet_host.listeners import rank, servers, split_address
from ratchet_host.side_effects import HTTP_DEFAULTS, compiled_in

MAX_PORTS = 200
# Blocks whose lines are data: their first words are no directives.
DATA_BLOCKS = {"map", "geo", "types", "split_clients", "charset_map", "match"}
PATH_DIRECTIVES = re.compile(r"access_log|error_log|\w+_temp_path|\w+_cache_path")
NOT_A_FILE = re.compile(r"off$|stderr$|syslog:|memory:")
# Below it is what workers create under names that they find at each request; all other files are opened by root.
BY_WORKERS = "by-workers"
SOCKET_OPTION = re.compile(
    r"(setfib|fastopen|backlog|rcvbuf|sndbuf|accept_filter|so_keepalive)=|deferred$|bind$|reuseport$"
)


class ShadowText:
    """Rewrites a configuration so that a second nginx can run it beside the live one and share nothing with it.

    Every listen address becomes the instance's own port on 127.0.0.1; logs, caches and temporary files move under its
    own folder, and no cache takes more than `cache_bytes`. All else stays as it is: sites, upstreams, certificates.
    """

    def __init__(
        self,
        directives: list[Directive],
        run: Path,
        data: Path,
        allocate: Callable[[str, int], int],
        cache_bytes: int = 64 << 20,
    ) -> None:
        # What must be there before nginx starts; apart from them those in which its workers make files themselves.
        self.folders: set[Path] = set()
        self.shared_folders: set[Path] = set()
        self.access_logs: set[Path] = set()
        self._cache_bytes = cache_bytes
        self.ports: dict[int, int] = {}
        self._run = run
        self._data = data
        self._allocate = allocate
        self._once: set[tuple[str, int, str]] = set()
        self.text = self._rewrite(directives)

    def _rewrite(self, directives: list[Directive]) -> str:
        for directive in directives:
            self._move(directive)
        for kind in ("http", "stream", "mail"):
            blocks = [server.block for server in servers(directives, kind) if server.block is not None]
            reach = self._reachable(blocks, kind)
            for block in blocks:
                self._listen(block, kind, reach)
        own = [statement("pid", str(self._run / "nginx.pid"))]
        if not any(directive.name == "error_log" for directive in directives):
            own.append(statement("error_log", self._own("/var/log/nginx/error.log")))
        for http in directives:
            if http.name == "http" and http.block is not None:
                http.block[:0] = self._defaults(http.block)
        replaced = {"pid", "daemon", "master_process", "lock_file"}
        return render(own + [directive for directive in directives if directive.name not in replaced])

    def _defaults(self, http: list[Directive]) -> list[Directive]:
        """What nginx would put at compiled-in places, which are the live instance's."""
        present = {directive.name for directive in http}
        own = []
        if "access_log" not in present:
            log = self._own("/var/log/nginx/access.log")
            self.access_logs.add(Path(log))
            own.append(statement("access_log", log))
        for name, path in compiled_in_paths().items():
            if name not in present:
                own.append(statement(name, self._own(path)))
        return own

    def _move(self, directive: Directive) -> None:
        """Move the files that a directive writes, at any depth, under the instance's folder."""
        if directive.raw is not None:
            raise Refused(f"line {directive.line}: {directive.name}: Lua runs in no shadow; use the design switchback")
        words = directive.words
        if len(words) > 1 and PATH_DIRECTIVES.fullmatch(directive.name) and not NOT_A_FILE.match(plain(words[1])):
            own = self._own(plain(words[1]))
            words[1] = quote(own)
            if directive.name == "access_log" and "$" not in own:
                self.access_logs.add(Path(own))
            if directive.name.endswith("_cache_path"):
                self._bound(words)
        if directive.block is not None and directive.name not in DATA_BLOCKS:
            for inner in directive.block:
                self._move(inner)

    def _own(self, path: str) -> str:
        """The instance's place for a path of the live one; its folder is remembered, to be created."""
        absolute = os.path.normpath(os.path.join("/usr/share/nginx", path))  # noqa: PTH118
        before, variable, _ = absolute.partition("$")
        place = self._data / BY_WORKERS if variable else self._data
        folder = Path(f"{place}{before}x" if variable else f"{place}{before}").parent
        (self.shared_folders if variable else self.folders).add(folder)
        return f"{place}{absolute}"

    def _bound(self, words: list[str]) -> None:
        """Let a cache take what a shadow may have at most: nginx's own default is no limit."""
        stated = [size for word in words[2:] if (size := size_of(plain(word), "max_size")) is not None]
        if not stated or min(stated) > self._cache_bytes:
            words[2:] = [word for word in words[2:] if not plain(word).startswith("max_size=")]
            words.append(f"max_size={self._cache_bytes >> 10}k")

    @staticmethod
    def _reachable(blocks: list[list[Directive]], kind: str) -> dict[tuple[str, int], int]:
        """How directly each port is reached by a client of 127.0.0.1: the live nginx prefers the exact address."""
        reach: dict[tuple[str, int], int] = {}
        for block in blocks:
            for host, ports, protocol, _ in listens_of(block, kind):
                for port in ports:
                    reach[protocol, port] = max(rank(host), reach.get((protocol, port), 0))
        return reach

    def _listen(self, block: list[Directive], kind: str, reach: dict[tuple[str, int], int]) -> None:
        """Replace the listen directives of one server."""
        own: list[Directive] = []
        here: set[tuple[str, int]] = set()
        for host, ports, protocol, flags in listens_of(block, kind):
            for port in ports:
                key = (protocol, port)
                if key in here or rank(host) < reach[key]:
                    continue
                here.add(key)
                target = self._allocate(protocol, port)
                if protocol == "tcp":
                    self.ports[port] = target
                own.append(statement("listen", f"127.0.0.1:{target}", *self._flags(key, flags)))
        if not own:
            # A server that no client of 127.0.0.1 reaches; without a listen directive it would take port 80.
            own.append(statement("listen", f"unix:{self._run}/unreached.sock"))
        block[:] = own + [directive for directive in block if directive.name != "listen"]

    def _flags(self, key: tuple[str, int], flags: list[str]) -> list[str]:
        """The options that fit: those of the socket and of the default server once for each port."""
        kept = []
        for flag in flags:
            once = "default" if flag in {"default", "default_server"} else "socket" if SOCKET_OPTION.match(flag) else ""
            if flag.startswith("ipv6only=") or (once and (*key, once) in self._once):
                continue
            kept.append(flag)
        for flag in kept:
            if flag in {"default", "default_server"}:
                self._once.add((*key, "default"))
        # nginx takes socket options from one listen directive of an address only.
        self._once.add((*key, "socket"))
        return kept


def listens_of(block: list[Directive], kind: str) -> list[tuple[str, range, str, list[str]]]:
    """Host, ports, protocol and options of a server's listen directives; sockets in the file system left out."""
    found = []
    listens = [directive.arguments for directive in block if directive.name == "listen"]
    for words in listens or ([["80"]] if kind == "http" else []):
        if not words or words[0].startswith("unix:"):
            continue
        host, ports = split_address(words[0])
        if len(ports) > MAX_PORTS:
            raise Refused(f"listen {words[0]}: too many ports for a shadow instance; use the design switchback")
        found.append((host, ports, "udp" if {"udp", "quic"} & set(words[1:]) else "tcp", words[1:]))
    return found


def size_of(word: str, name: str) -> int | None:
    """Bytes that `name=SIZE` states in nginx's units; None for anything else, and for 0, which is no limit."""
    match = re.fullmatch(rf"{name}=([0-9]{{1,18}})([kKmMgG]?)", word)
    return (int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()] or None) if match else None


def compiled_in_paths() -> dict[str, str]:
    """Where nginx keeps temporary files unless told otherwise: directive -> path."""
    options = compiled_in()
    return {
        f"{name}_path": options[f"http-{name.replace('_', '-')}-path"]
        for name in HTTP_DEFAULTS
        if f"http-{name.replace('_', '-')}-path" in options and name.removesuffix("_temp") not in options
    }
