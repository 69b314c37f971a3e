"""`status`: what runs, what is confirmed, what was edited, who has the host."""

from __future__ import annotations

import contextlib

from ratchet_host import VERSION
from ratchet_host.claim import Claim
from ratchet_host.configurations import confirmed, live, shown, staged
from ratchet_host.drift import drift
from ratchet_host.errors import Refused
from ratchet_host.instance import Live, running
from ratchet_host.lease import Lease, keeper
from ratchet_host.locks import Lock
from ratchet_host.nginx import nginx_version
from ratchet_host.paths import configuration_file
from ratchet_host.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def command_status() -> dict[str, Any]:
    found = Live()
    held = Lease.read()
    identity = live()
    runs = running()
    fingerprint = None
    if identity is not None:
        with contextlib.suppress(Refused):
            fingerprint = Tree(configuration_file(identity)).fingerprint()
    session = Lock("session.lock").holder()
    claim = Claim.read()
    lease = None
    if held is not None or session is not None:
        lease = {
            "seconds_left": None if held is None else round(held.left, 1),
            "session": session.pid if session else None,
        }
    keeping = keeper()
    return {
        "ok": True,
        "version": VERSION,
        "live": shown(identity),
        "confirmed": shown(confirmed()),
        "fingerprint": fingerprint,
        "running": shown(runs),
        "verified": identity is not None and runs == identity,
        "drift": drift(),
        "lease": lease,
        "claim": claim.document() if claim else None,
        "nginx": {
            "version": nginx_version(),
            "running": bool(found.masters),
            "workers": len(found.workers),
        },
        "keeper": keeping is not None and not keeping.stopped,
        "staged": staged(),
    }
