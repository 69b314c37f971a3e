"""The lease: how long a host may run what is not confirmed. An absolute end, in a file that the keeper looks at."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

from ratchet_host import paths
from ratchet_host.errors import Refused
from ratchet_host.files import write_atomically
from ratchet_host.paths import LONGEST_LEASE
from ratchet_host.processes import Process, boot_clock, process

KEEPER_SECONDS = 3.0


class Lease:
    """On the boot clock, which no jump of the wall clock moves and no suspended hour stops; a reboot ends it.

    Attributes:
        until: when it ends. Nothing moves that but its holder, and no further than `latest`.
        latest: the end that was recorded when it was armed.
        holder: the session that may renew it; that which armed it for a person ended long ago.
    """

    def __init__(self, until: float, latest: float, holder: Process) -> None:
        self.until = until
        self.latest = latest
        self.holder = holder

    @staticmethod
    def path() -> Path:
        return paths.RUN / "lease"

    @staticmethod
    def read() -> Lease | None:
        """The lease that holds now; None when there is none, or it is over."""
        try:
            words = Lease.path().read_text().split()
            lease = Lease(float(words[0]), float(words[1]), Process(int(words[2]), int(words[3])))
        except (OSError, ValueError, IndexError):
            return None
        return lease if 0 < lease.left <= LONGEST_LEASE and lease.until <= lease.latest else None

    @staticmethod
    def over(holder: Process) -> bool:
        """Whether the last lease was that process's, and is over."""
        words = Lease.path().read_text().split() if Lease.path().exists() else []
        return words[2:] == [str(holder.pid), str(holder.start)] and Lease.read() is None

    @property
    def left(self) -> float:
        return self.until - boot_clock()

    @property
    def ours(self) -> bool:
        return self.holder == process(os.getpid())

    def write(self) -> None:
        words = f"{self.until:.3f} {self.latest:.3f} {self.holder.pid} {self.holder.start}\n"
        write_atomically(Lease.path(), words.encode(), 0o600)


def keeper() -> Process | None:
    """The keeper, by the lock that it holds; None when none lives."""
    try:
        descriptor = os.open(paths.RUN / "keeper", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return process(pid) if kind != fcntl.F_UNLCK else None


def require_keeper() -> None:
    """Raises Refused unless somebody looks at leases; one that systemd starts anew just now is waited for."""
    deadline = time.monotonic() + KEEPER_SECONDS
    while (found := keeper()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if found is None or found.stopped:
        state = "does not run" if found is None else "is stopped"
        raise Refused(
            f"ratchet-keeper {state}, so nothing would end the lease and nothing is switched: "
            "systemctl restart ratchet-keeper"
        )


def arm(seconds: int, bound: int | None = None) -> None:
    """Let what is not confirmed be live for `seconds`, and with renewals for no more than `bound`.

    The lease is there before anything goes live, and takes the place of an earlier one at once. Raises Refused or
    OSError with that as it was.
    """
    require_keeper()
    now = boot_clock()
    longest = min(LONGEST_LEASE, max(seconds, bound or seconds))
    holder = process(os.getpid()) or Process(os.getpid(), 0)
    Lease(now + min(seconds, longest), now + longest, holder).write()


def lease_left() -> float:
    """Seconds; 0 without a lease."""
    lease = Lease.read()
    return lease.left if lease else 0.0


def require_lease() -> Lease:
    """The lease of this process. Raises Refused when it is over, gone, or another's."""
    lease = Lease.read()
    if lease is None:
        raise Refused("the lease is over or gone; nothing is switched")
    if not lease.ours:
        raise Refused(f"the lease is another's now (process {lease.holder.pid}); nothing is switched")
    require_keeper()
    return lease


def renew(seconds: int) -> None:
    """Move the end of this process's lease, within what was recorded. Raises Refused when there is none to renew."""
    lease = require_lease()
    lease.until = min(boot_clock() + seconds, lease.latest)
    lease.write()


def begin_anew(bound: int) -> None:
    """Let this process's lease be renewed for `bound` seconds from now; its end stays. Raises Refused as `renew`."""
    lease = require_lease()
    lease.latest = max(lease.until, boot_clock() + min(LONGEST_LEASE, bound))
    lease.write()


def disarm() -> None:
    """End the lease. What is not confirmed has none then: the keeper takes it back."""
    Lease.path().unlink(missing_ok=True)
