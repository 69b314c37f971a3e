"""A configuration with every file that it includes, and the fingerprint of them all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ratchet_host import paths, wildcards
from ratchet_host.errors import Refused
from ratchet_host.language import Directive, parse
from ratchet_host.marks import split_mark

MAX_TREE = 16 << 20
MAX_FILES = 1000
MAX_DEPTH = 20


class Tree:
    """A configuration with everything that it includes, as nginx reads it: relative names are under /etc/nginx."""

    def __init__(self, main: Path) -> None:
        self.main = main
        # The main file's mark is none of its content.
        # path as nginx names it -> content; the main file's key is "nginx.conf", whichever is tested or live
        self.files: dict[str, bytes] = {}
        self._size = 0
        self.directives = self._load(main, "nginx.conf", 0)

    def _load(self, path: Path, key: str, depth: int) -> list[Directive]:
        if depth > MAX_DEPTH or len(self.files) > MAX_FILES:
            raise Refused(f"{path}: too many includes, or they include each other")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from None
        if depth == 0:
            _, content = split_mark(content)
        self._size += len(content)
        if self._size > MAX_TREE:
            raise Refused(f"{path}: the configuration is larger than {MAX_TREE >> 20} MiB with its includes")
        self.files[key] = content
        return self._expand(parse(content.decode("utf-8", "surrogateescape"), str(path)), depth)

    def _expand(self, directives: list[Directive], depth: int) -> list[Directive]:
        expanded: list[Directive] = []
        for directive in directives:
            if directive.block is not None:
                directive.block = self._expand(directive.block, depth)
            if directive.name == "include" and directive.block is None and len(directive.words) == 2:
                for path in included(directive.arguments[0]):
                    expanded += self._load(path, str(path), depth + 1)
            else:
                expanded.append(directive)
        return expanded

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all files."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def included(pattern: str) -> list[Path]:
    """The files an include names, in nginx's order; a name without wildcard is taken as it is."""
    full = os.path.join(paths.ETC, pattern)  # noqa: PTH118 - an absolute pattern stands for itself
    raw = full.encode("utf-8", "surrogateescape")
    if not wildcards.has_wildcards(raw):
        return [Path(full)]
    return [Path(name.decode("utf-8", "surrogateescape")) for name in wildcards.find(raw)]
