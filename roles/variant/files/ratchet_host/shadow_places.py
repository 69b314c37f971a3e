"""Where the shadow instances are, and their end.

Every way back ends them: it needs nothing of what starts and runs them (`shadows`).
"""

from __future__ import annotations

import contextlib

from ratchet_host import paths, system
from ratchet_host.errors import Refused
from ratchet_host.files import remove_tree

INSTANCES = ("a", "b")
SHADOW_FOLDER = "shadow-"


class ShadowPlace:
    """One shadow instance's unit, folders and the link beside nginx.conf that it is started by."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unit = f"ratchet-shadow-{name}.service"
        self.run = paths.RUN / f"{SHADOW_FOLDER}{name}"
        self.data = paths.VAR / f"{SHADOW_FOLDER}{name}"
        # Beside nginx.conf, because names in it are relative to its folder.
        self.link = paths.ETC / f".ratchet-shadow-{name}.conf"


def stop_shadows() -> None:
    """Remove the shadow instances and all that they wrote; nothing happens when there are none."""
    shadows = [ShadowPlace(name) for name in INSTANCES]
    if not any(shadow.run.exists() or shadow.data.exists() or shadow.link.is_symlink() for shadow in shadows):
        return
    for shadow in shadows:
        with contextlib.suppress(Refused):
            system.run("systemctl", "stop", shadow.unit, timeout=15)
    for shadow in shadows:
        shadow.link.unlink(missing_ok=True)
        remove_tree(shadow.data)
        remove_tree(shadow.run)
