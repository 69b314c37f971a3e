"""Where a shadow instance writes: logs, caches and temporary files, in a place that cannot outgrow its size.

It is a filesystem in memory, counted with the shadow's own: live nginx's disk is not touched, and unmounting it is all
that there is to clean up, whatever somebody does in there meanwhile. Where no mount is allowed it is a folder on the
disk: each file has a limit of the unit's, and the session looks at their sum.
"""

from __future__ import annotations

import contextlib
import os
import stat
import syslog
from pathlib import Path

from ratchet_host import paths, system
from ratchet_host.errors import Refused
from ratchet_host.removal import remove, sweep

SMALLEST, LARGEST = 16 << 20, 256 << 20
# Of a filesystem or folder that is as full as that nothing reasonable is left to measure.
FULL = 0.9
# Logs of requests are emptied from here on.
LOG_BYTES = 1 << 20
MOST_FILES = 50_000
# What a disk keeps for live nginx beside both shadows.
LEAST_DISK = 200 << 20


def available_memory() -> int:
    """Bytes that the kernel could still give; 0 when it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in (paths.PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def folder_bytes(available: int) -> int:
    """What one shadow may write, for so much available memory."""
    return min(LARGEST, max(SMALLEST, available // 16))


def empty_log(log: Path) -> None:
    """Empty a log that has grown; nginx, which appends, goes on at its beginning."""
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size > LOG_BYTES:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


class ShadowFolder:
    """The place of one shadow; `make` it anew for each instance."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.size = SMALLEST
        self._mounted = False

    def make(self) -> None:
        """Empty, of its size, and root's. Raises Refused."""
        remove(self._folder)
        sweep(self._folder.parent)
        self.size = folder_bytes(available_memory())
        options = f"size={self.size},nr_inodes={MOST_FILES},mode=0700,nosuid,nodev,noexec"
        stays = os.path.lexists(self._folder)
        if not stays:
            self._folder.mkdir(mode=0o700)
        try:
            code, text = system.run(
                "mount", "-t", "tmpfs", "-o", options, "ratchet-shadow", str(self._folder), timeout=5
            )
        except Refused as refused:
            code, text = 1, str(refused)
        self._mounted = code == 0
        if self._mounted:
            return
        system.log(f"{self._folder}: no filesystem in memory, so it is on the disk: {text[-200:]}", syslog.LOG_WARNING)
        if stays:
            raise Refused(f"{self._folder} is in the way of a shadow instance and cannot be moved; delete it")
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if free < LEAST_DISK + 2 * self.size:
            raise Refused(
                f"only {free >> 20} MiB are free at {self._folder}, a duet needs {(LEAST_DISK + 2 * self.size) >> 20} "
                "for what its shadow instances write; free some, or use the design switchback"
            )

    def let_in(self, group: int | None) -> None:
        """Let workers through to their files: those of a group, or all accounts where it is not known."""
        os.chown(self._folder, 0, group or 0)
        self._folder.chmod(0o711 if group is None else 0o710)

    def limits(self) -> list[str]:
        """Properties of the unit."""
        return [] if self._mounted else [f"LimitFSIZE={self.size}"]

    def command(self) -> list[str]:
        """What starts nginx, if anything: a file at its limit is to be an error of nginx's, not the end of a worker."""
        return [] if self._mounted else ["/bin/sh", "-c", "trap '' XFSZ; exec \"$@\"", "nginx"]

    def is_full(self) -> bool:
        if self._mounted:
            used = os.statvfs(self._folder)
            return used.f_bfree < used.f_blocks * (1 - FULL) or used.f_ffree < used.f_files * (1 - FULL)
        total = files = 0
        waiting = [str(self._folder)]
        while waiting:
            try:
                for entry in os.scandir(waiting.pop()):
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if files > MOST_FILES or total > self.size * FULL:
                        return True
            except FileNotFoundError:
                continue
            except OSError:
                # Deeper than a path can name: nothing that nginx makes.
                return True
        return False
