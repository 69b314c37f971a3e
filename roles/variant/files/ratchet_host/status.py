"""`status`: what runs, what is confirmed, what was edited, who has the host."""

from __future__ import annotations

import contextlib

from ratchet_host import VERSION
from ratchet_host.claim import Claim
from ratchet_host.configurations import confirmed, live, shown, staged
from ratchet_host.drift import drift
from ratchet_host.errors import Refused
from ratchet_host.lease import lease_left
from ratchet_host.locks import Lock
from ratchet_host.marker import Marker
from ratchet_host.nginx import master, nginx_version, workers
from ratchet_host.paths import configuration_file
from ratchet_host.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def command_status() -> dict[str, Any]:
    parent = master()
    left = lease_left()
    identity = live()
    fingerprint = None
    if identity is not None:
        with contextlib.suppress(Refused):
            fingerprint = Tree(configuration_file(identity)).fingerprint()
    session = Lock("session.lock").holder()
    claim = Claim.read()
    lease = None
    if left is not None or session is not None:
        lease = {
            "seconds_left": None if left is None else round(left, 1),
            "session": session.pid if session else None,
        }
    return {
        "ok": True,
        "version": VERSION,
        "live": shown(identity),
        "confirmed": shown(confirmed()),
        "fingerprint": fingerprint,
        "verified": Marker.holds(identity, parent),
        "drift": drift(),
        "lease": lease,
        "claim": claim.document() if claim else None,
        "nginx": {
            "version": nginx_version(),
            "running": parent is not None,
            "workers": len(workers(parent)) if parent else 0,
        },
        "staged": staged(),
    }
