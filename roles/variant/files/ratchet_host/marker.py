"""What nginx is known to run: after a crash at any line the next command can tell."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ratchet_host import paths, processes
from ratchet_host.configurations import adopted, live
from ratchet_host.files import write_atomically
from ratchet_host.processes import Process


class Marker:
    """Remembers that nginx is known to run a configuration. It is taken away before anything is touched.

    It holds for the master that was reloaded and seen to answer, and for any master that started after it was
    written: that one has read the link itself.
    """

    @staticmethod
    def path() -> Path:
        return paths.RUN / "running.json"

    @staticmethod
    def clear() -> None:
        Marker.path().unlink(missing_ok=True)

    @staticmethod
    def write(identity: str, parent: Process | None) -> None:
        document = {
            "id": identity,
            "since": processes.boot_clock(),
            "master": [parent.pid, parent.start] if parent else None,
        }
        write_atomically(Marker.path(), json.dumps(document).encode(), 0o600)

    @staticmethod
    def holds(identity: str | None, parent: Process | None) -> bool:
        """Whether nginx is known to run `identity` now."""
        if parent is None or identity is None or live() != identity or not adopted():
            return False
        try:
            document = json.loads(Marker.path().read_bytes())
            ticks = os.sysconf("SC_CLK_TCK")
            later = parent.start / ticks > document["since"]
            return bool(document["id"] == identity and (document["master"] == [parent.pid, parent.start] or later))
        except (OSError, ValueError, KeyError, TypeError):
            return False
