"""`known_hosts`: the only host keys that are trusted. Lines and names that are not ours stay as they are."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.documents import is_there, read_text
from controller.model.errors import BadInput

UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One line. What trusts nothing (a comment, an empty line) has no names.

    Attributes:
        marker: `@revoked` or `@cert-authority`: the line trusts no host key.
        key: `TYPE BASE64`.
    """

    text: str
    marker: str = ""
    names: tuple[str, ...] = ()
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Line:
        words = text.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or text.lstrip().startswith("#"):
            return cls(text)
        return cls(text, marker, tuple(words[0].split(",")), " ".join(words[1:3]))

    def trusts(self, address: str) -> bool:
        return not self.marker and any(_is(name, address) for name in self.names)

    def without(self, addresses: Collection[str]) -> str:
        """The line for its other names; empty when it has none."""
        rest = [name for name in self.names if not any(_is(name, address) for address in addresses)]
        return self.text.replace(",".join(self.names), ",".join(rest), 1) if rest else ""


def _is(name: str, address: str) -> bool:
    """Whether a name is this address, which may be hashed (`|1|SALT|HASH`)."""
    if not name.startswith("|1|"):
        return name == address
    try:
        salt, digest = (base64.b64decode(part) for part in name.split("|")[2:])
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.digest(salt, address.encode(), hashlib.sha1), digest)


def read_known_hosts(path: Path) -> list[Line]:
    """Every line of it; none when there is no file. Raises BadInput when ssh would read it otherwise, or cannot."""
    lines = _lines(path)
    if lines and path.read_bytes().startswith(UTF8_MARK):
        raise BadInput(
            "begins with a byte order mark, which ssh takes for a part of the first address",
            where=f"{path}:1",
            next_step=f"save it as UTF-8 without one: sed -i '1s/^\\xef\\xbb\\xbf//' {path}",
        )
    return lines


def _lines(path: Path) -> list[Line]:
    text = read_text(path) if is_there(path) else ""
    return [Line.parse(line) for line in text.removesuffix("\n").split("\n")] if text else []


def trusted_keys(path: Path) -> list[str]:
    """`NAMES TYPE BASE64` of each line that trusts a key which no line revokes, for whomever. Raises BadInput."""
    lines = read_known_hosts(path)
    revoked = {line.key for line in lines if line.marker == "@revoked"}
    return [
        f"{','.join(line.names)} {line.key}"
        for line in lines
        if line.names and not line.marker and line.key not in revoked
    ]


class KnownHosts:
    """The file of one fleet. Safe for several threads of one process, not for several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def key_of(self, address: str) -> str:
        """`TYPE BASE64` of an address; empty when it has none. Raises BadInput when the file cannot be read."""
        return next((line.key for line in read_known_hosts(self.path) if line.trusts(address)), "")

    def trust(self, address: str, key: str) -> bool:
        """Make `key` (`TYPE BASE64 ...`) the address's only one; returns whether the file changed."""
        key = " ".join(key.split()[:2])
        with self._lock:
            lines = read_known_hosts(self.path)
            if [line.key for line in lines if line.trusts(address)] == [key]:
                return False
            self._write([*_without(lines, {address}), f"{address} {key}"])
            return True

    def forget(self, addresses: Collection[str]) -> bool:
        """Forget these addresses: each may be another's machine by now. Returns whether the file changed.

        A file that holds nothing else is removed, but for one that a link leads to.
        """
        with self._lock:
            lines = _lines(self.path)
            kept = _without(lines, addresses)
            if kept == [line.text for line in lines]:
                return False
            if any(text.strip() for text in kept) or self.path.is_symlink():
                self._write(kept)
            else:
                self.path.unlink()
            return True

    def _write(self, lines: list[str]) -> None:
        write_atomically(self.path, "".join(f"{line}\n" for line in lines))


def _without(lines: list[Line], addresses: Collection[str]) -> list[str]:
    """The lines, none of which trusts these addresses. A revoked key stays revoked."""
    texts = [line.without(addresses) if any(map(line.trusts, addresses)) else line.text for line in lines]
    return [text for line, text in zip(lines, texts, strict=True) if text or not line.names]
