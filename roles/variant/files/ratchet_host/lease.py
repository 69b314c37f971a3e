"""The lease: a timer of systemd's that makes the confirmed configuration live again, whoever has died."""

from __future__ import annotations

import re
import time

from ratchet_host import system
from ratchet_host.errors import Refused
from ratchet_host.paths import LEASE
from ratchet_host.restoring import restore
from ratchet_host.system import show

_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "month": 2629800,
    "y": 31557600,
}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|min|h|d|w|month|y)")


def parse_span(text: str) -> float | None:
    """Seconds of a time span as systemd prints it ("15min 47.7s"); None for infinity and the like."""
    words = text.split()
    parts = [_SPAN.fullmatch(word) for word in words]
    if not words or not all(parts):
        return None
    return sum(float(part[1]) * _UNITS[part[2]] for part in parts if part)


def lease_left() -> float | None:
    """Seconds until the lease ends, by systemd's own account; None when it is not armed."""
    state = show(f"{LEASE}.timer", "ActiveState", "SubState", "NextElapseUSecMonotonic")
    if state.get("ActiveState") != "active" or state.get("SubState") != "waiting":
        return None
    due = parse_span(state.get("NextElapseUSecMonotonic", ""))
    return None if due is None else due - time.clock_gettime(time.CLOCK_MONOTONIC)


def require_lease(seconds: float) -> None:
    """Raises Refused unless the lease is pending and ends within `seconds`."""
    left = lease_left()
    if left is None:
        raise Refused("the lease is not armed: its timer is gone; nothing is switched")
    if not -1 <= left <= seconds + 1:
        raise Refused(f"the lease's timer is due in {left:.0f} s instead of {seconds:.0f} s; nothing is switched")


def arm(seconds: int) -> None:
    """Start the lease anew. Raises Refused when it is not pending afterwards; the baseline is live then."""
    disarm()
    system.run("systemctl", "reset-failed", f"{LEASE}.timer", f"{LEASE}.service")
    # systemd's monotonic clock: a jump of the wall clock does not matter.
    code, text = system.run(
        "systemd-run",
        "--quiet",
        f"--unit={LEASE}",
        f"--on-active={seconds}s",
        "--timer-property=AccuracySec=100ms",
        "--timer-property=RemainAfterElapse=no",
    )
    try:
        if code:
            raise Refused(f"the lease cannot be armed, so nothing is switched: {text[-300:]}")
        require_lease(seconds)
    except Refused:
        restore()
        raise


def renew(seconds: int) -> None:
    """Let the running lease start anew. Raises Refused when there was none to renew."""
    require_lease(seconds)
    code, text = system.run("systemctl", "restart", f"{LEASE}.timer")
    if code:
        raise Refused(f"the lease cannot be renewed: {text[-300:]}")
    require_lease(seconds)


def disarm() -> None:
    """End the lease, and the attempts of one that has run out and could not restore the baseline."""
    system.run("systemctl", "stop", f"{LEASE}.timer", f"{LEASE}.service")
