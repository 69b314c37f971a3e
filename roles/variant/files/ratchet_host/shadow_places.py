"""Where the shadow instances are, and their end.

Whoever goes back ends them too, but never first: going back waits for nothing that others write. This needs nothing of
what starts and runs them (`shadows`), takes a few seconds at most, and never raises.
"""

from __future__ import annotations

import contextlib
import os
import syslog
import time

from ratchet_host import paths, system
from ratchet_host.errors import Refused, explain
from ratchet_host.removal import SECONDS, remove

INSTANCES = ("a", "b")
SHADOW_FOLDER = "shadow-"
# They are killed after 3 s (their unit's TimeoutStopSec).
STOP_SECONDS = 8.0


class ShadowPlace:
    """One shadow instance's unit, folders and the link beside nginx.conf that it is started by."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unit = f"ratchet-shadow-{name}.service"
        self.run = paths.RUN / f"{SHADOW_FOLDER}{name}"
        self.data = paths.VAR / f"{SHADOW_FOLDER}{name}"
        # Beside nginx.conf, because names in it are relative to its folder.
        self.link = paths.ETC / f".ratchet-shadow-{name}.conf"

    @property
    def exists(self) -> bool:
        return any(os.path.lexists(place) for place in (self.run, self.data, self.link))


def stop_shadows() -> None:
    """Remove the shadow instances and all that they wrote; nothing happens when there are none. Never raises."""
    shadows = [shadow for name in INSTANCES if (shadow := ShadowPlace(name)).exists]
    if not shadows:
        return
    units = [shadow.unit for shadow in shadows]
    try:
        system.run("systemctl", "stop", *units, timeout=STOP_SECONDS)
    except Refused as refused:
        system.log(f"a shadow instance does not stop: {refused}", syslog.LOG_WARNING)
        with contextlib.suppress(Refused):
            system.run("systemctl", "kill", "--signal=KILL", *units, timeout=STOP_SECONDS)
    deadline = time.monotonic() + SECONDS
    for place in (place for shadow in shadows for place in (shadow.link, shadow.run, shadow.data)):
        try:
            remove(place, max(0.1, deadline - time.monotonic()))
        except OSError as error:
            system.log(f"{place} stays: {explain(error)}", syslog.LOG_WARNING)
