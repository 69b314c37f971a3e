"""`known_hosts`: the only host keys that are trusted. One line a host; lines that are not ours stay as they are."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.documents import read_text


class KnownHosts:
    """The file of one fleet. Safe for several threads of one process, not for several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def key_of(self, address: str) -> str:
        """`TYPE BASE64` of an address; empty when it has none. Raises BadInput when the file cannot be read."""
        for words in map(str.split, self._lines()):
            if len(words) >= 3 and words[0] == address:
                return " ".join(words[1:3])
        return ""

    def trust(self, address: str, key: str) -> bool:
        """Make `key` (`TYPE BASE64 ...`) the address's only one; returns whether the file changed."""
        entry = " ".join([address, *key.split()[:2]])
        with self._lock:
            lines = self._lines()
            kept = [line for line in lines if line.split()[:1] != [address]]
            if entry in lines and len(kept) == len(lines) - 1:
                return False
            write_atomically(self.path, "\n".join([*kept, entry]) + "\n")
            return True

    def forget(self, addresses: Collection[str]) -> bool:
        """Forget these addresses: each may be another's machine by now. Returns whether the file changed.

        A file that holds nothing else is removed.
        """
        with self._lock:
            lines = self._lines()
            kept = [line for line in lines if line.split()[0] not in addresses]
            if kept == lines:
                return False
            if kept:
                write_atomically(self.path, "".join(f"{line}\n" for line in kept))
            else:
                self.path.unlink()
            return True

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return [line for line in read_text(self.path).splitlines() if line.strip()]
