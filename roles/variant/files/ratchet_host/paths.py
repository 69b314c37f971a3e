"""Where everything is on a host, and how it is named there.

Rooms read the places that come first through the module (`paths.ETC`), so that a test moves them all in one place.
"""

from __future__ import annotations

import re
from pathlib import Path

ETC = Path("/etc/nginx")
VAR = Path("/var/lib/ratchet")
RUN = Path("/run/ratchet")
PROC = Path("/proc")
NGINX = "/usr/sbin/nginx"
ERROR_LOG = Path("/var/log/nginx/error.log")

SERVICE = "nginx.service"
LEASE = "ratchet-lease"
# A commit is over in a second; a longer one is in trouble.
CONFIRM_LEASE = 60

# The distribution's own nginx.conf, kept as if it were staged under this name.
ORIGINAL = "original"
ID = re.compile(r"[0-9a-f]{16}")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,127}")


def ratchet() -> Path:
    return ETC / "ratchet"


def pristine_file(identity: str) -> Path:
    """The staged text again, beside a live file that somebody has edited."""
    return ratchet() / identity / "nginx.conf.staged"


def live_link() -> Path:
    return ratchet() / "live"


def confirmed_link() -> Path:
    return ratchet() / "confirmed"


def configuration_file(identity: str) -> Path:
    return ratchet() / identity / "nginx.conf"
