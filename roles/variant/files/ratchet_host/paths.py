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

KEEPER = "/usr/local/sbin/ratchet-keeper"
# A commit is over in a second; a longer one is in trouble.
CONFIRM_LEASE = 60
# However long it is asked for, and however often it is renewed.
LONGEST_LEASE = 3600
# What /etc/nginx/nginx.conf links to.
LIVE_TARGET = "ratchet/live/nginx.conf"

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


def copy_file(identity: str) -> Path:
    """A baseline in one file, with all that it included when it was confirmed."""
    return VAR / f"baseline-{identity}.conf"


def marks_file(identity: str) -> Path:
    """Every mark that a baseline has been given."""
    return VAR / f"marks-{identity}"


def record_file(identity: str) -> Path:
    """Every file of a baseline as it was confirmed."""
    return VAR / f"confirmed-{identity}.json"
