"""`expire` and `boot`: what systemd calls, when a lease has run out and before nginx starts."""

from __future__ import annotations

import syslog
import time

from ratchet_host import paths
from ratchet_host.configurations import confirmed, live, shown
from ratchet_host.errors import Refused
from ratchet_host.files import point
from ratchet_host.locks import Lock
from ratchet_host.marker import Marker
from ratchet_host.nginx import master
from ratchet_host.paths import live_link
from ratchet_host.restoring import restore
from ratchet_host.shadow_places import stop_shadows
from ratchet_host.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BOOT_SECONDS = 30.0


def command_expire() -> dict[str, Any]:
    """The lease has run out: whoever holds the host has lost it."""
    log("the lease has run out", syslog.LOG_WARNING)
    session = Lock("session.lock")
    session.wrest(grace=0)
    lock = Lock("lock")
    lock.wrest(grace=0)
    try:
        changed = restore()
    finally:
        lock.free()
        session.free()
    return {"ok": True, "changed": changed, "live": shown(live()), "confirmed": shown(confirmed())}


def command_boot() -> dict[str, Any]:
    """Before nginx starts: what was not confirmed does not survive a power cut."""
    lock = Lock("lock")
    deadline = time.monotonic() + BOOT_SECONDS
    while not lock.take():
        if (paths.RUN / "starting").exists():
            # Another ratchet-host starts nginx, and answers for what it runs.
            return {"ok": True, "changed": False, "live": shown(live()), "confirmed": shown(confirmed())}
        if time.monotonic() > deadline:
            raise Refused("another ratchet-host is at work on this host and does not end")
        time.sleep(0.05)
    try:
        stop_shadows()
        for leftover in paths.ETC.glob(".ratchet-*.conf"):
            leftover.unlink(missing_ok=True)
        baseline = confirmed()
        changed = baseline is not None and live() != baseline
        if master() is not None:
            changed = restore()
        elif baseline is not None:
            Marker.clear()
            if changed:
                point(live_link(), baseline)
                log(f"restored {baseline} before nginx starts")
            Marker.write(baseline, None)
    finally:
        lock.free()
    return {"ok": True, "changed": changed, "live": shown(live()), "confirmed": shown(baseline)}
