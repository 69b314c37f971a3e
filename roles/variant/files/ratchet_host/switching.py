"""Makes nginx run a staged configuration, or puts the previous one back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from ratchet_host import paths
from ratchet_host.configurations import adopted, live, main_target
from ratchet_host.errors import Refused, explain
from ratchet_host.files import point
from ratchet_host.instance import Live
from ratchet_host.language import Directive
from ratchet_host.marks import mark_in
from ratchet_host.nginx import check_health
from ratchet_host.paths import LIVE_TARGET, configuration_file, live_link
from ratchet_host.reload import Reload
from ratchet_host.tree import Tree

# Long requests may outlive a reload; the role's worker_shutdown_timeout ends them earlier.
OLD_WORKERS_SECONDS = 20.0
# The baseline is back once new workers serve it; what old ones still send need not be waited for.
RESTORE_SECONDS = 2.0


def run_live(identity: str, *, patience: float, strict: bool, last: Callable[[], object] = bool) -> None:
    """Point nginx.conf at a configuration and make nginx run it. Raises Refused unless every worker shows its mark.

    `last` is asked just before, and may raise: whatever came before may have taken its time.
    """
    directives: list[Directive] = []
    # What we cannot read is no reason not to go back to it: nginx has the last word.
    with contextlib.suppress(Refused):
        directives = Tree(configuration_file(identity)).directives
    found = Live()
    if not found.masters:
        raise Refused("nginx is not running; start it: systemctl start nginx")
    if found.upgraded:
        raise Refused(
            f"nginx's binary is being upgraded (the old master {found.upgraded[0].pid} and the new one "
            f"{found.masters[-1].pid} both serve); nothing is switched before that is over"
        )
    mark = mark_in(configuration_file(identity))
    last()
    if not adopted():
        # Somebody's own file, of a moment ago: a reload reads it, and a link in its place would lose it.
        raise Refused("/etc/nginx/nginx.conf was replaced by hand; nothing is switched")
    if live() != identity:
        point(live_link(), identity)
    if main_target() != LIVE_TARGET:
        point(paths.ETC / "nginx.conf", LIVE_TARGET)
    Reload(found.masters[-1], mark).wait(patience=patience, strict=strict)
    check_health(found.masters[-1], directives)
    if not Live().runs({mark}):
        raise Refused(f"not every worker of nginx shows that it runs {identity}")


def switch(
    identity: str,
    *,
    patience: float = OLD_WORKERS_SECONDS,
    strict: bool = True,
    last: Callable[[], object] = bool,
) -> float:
    """Make a configuration live, or put the previous one back; returns seconds taken. Raises Refused."""
    started = time.monotonic()
    previous = live()
    try:
        run_live(identity, patience=patience, strict=strict, last=last)
    except (Refused, OSError) as error:
        if previous is None or previous == identity:
            raise
        try:
            run_live(previous, patience=RESTORE_SECONDS, strict=False, last=last)
        except (Refused, OSError) as second:
            raise Refused(f"{explain(error)}; and {previous} could not be put back: {explain(second)}") from None
        raise Refused(f"{explain(error)}; {previous} is live again") from None
    return time.monotonic() - started
