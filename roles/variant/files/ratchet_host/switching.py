"""Makes nginx run a staged configuration, or puts the previous one back."""

from __future__ import annotations

import contextlib
import time

from ratchet_host import paths, system
from ratchet_host.configurations import live
from ratchet_host.errors import Refused, explain
from ratchet_host.files import point
from ratchet_host.language import Directive
from ratchet_host.marker import Marker
from ratchet_host.nginx import check_health, master
from ratchet_host.paths import SERVICE, configuration_file, live_link
from ratchet_host.processes import Process
from ratchet_host.reload import Reload
from ratchet_host.tree import Tree

# Long requests may outlive a reload; the role's worker_shutdown_timeout ends them earlier.
OLD_WORKERS_SECONDS = 20.0
# The baseline is back once new workers serve it; what old ones still send need not be waited for.
RESTORE_SECONDS = 2.0


def start_nginx() -> Process:
    """Raises Refused with nginx's own words when it does not start."""
    system.run("systemctl", "reset-failed", SERVICE)
    # systemd starts `boot` first, when it has not run since the host booted; it must not wait for the lock we hold.
    starting = paths.RUN / "starting"
    starting.touch()
    try:
        code, text = system.run("systemctl", "start", SERVICE, timeout=60)
    finally:
        starting.unlink(missing_ok=True)
    parent = master()
    if code or parent is None:
        raise Refused(f"nginx does not start: {text[-500:] or 'see journalctl -u nginx'}")
    return parent


def run_live(identity: str, *, patience: float, strict: bool) -> Process:
    """Point `live` at a configuration and make nginx run it; returns the master. Raises Refused."""
    directives: list[Directive] = []
    # What we cannot read is no reason not to go back to it: nginx has the last word.
    with contextlib.suppress(Refused):
        directives = Tree(configuration_file(identity)).directives
    Marker.clear()
    if live() != identity:
        point(live_link(), identity)
    parent = master()
    if parent is None:
        parent = start_nginx()
    else:
        Reload(parent).wait(patience=patience, strict=strict)
    check_health(parent, directives)
    Marker.write(identity, parent)
    return parent


def switch(identity: str, *, patience: float = OLD_WORKERS_SECONDS, strict: bool = True) -> float:
    """Make a configuration live, or put the previous one back; returns seconds taken. Raises Refused."""
    started = time.monotonic()
    previous = live()
    try:
        run_live(identity, patience=patience, strict=strict)
    except (Refused, OSError) as error:
        if previous is None or previous == identity:
            raise
        try:
            run_live(previous, patience=RESTORE_SECONDS, strict=False)
        except (Refused, OSError) as second:
            raise Refused(f"{explain(error)}; and {previous} could not be put back: {explain(second)}") from None
        raise Refused(f"{explain(error)}; {previous} is live again") from None
    return time.monotonic() - started
