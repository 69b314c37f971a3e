"""Disks fill up or turn read-only, on the host and at the controller."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from controller.adapters.store.holding import HOLD_SECONDS
from tests.faults import moments
from tests.faults.bay import Bay
from tests.faults.fault import AT_ONCE, BY_LEASE, Fault, Scene

READ_ONLY_SECONDS = 14
STATE = "/var/lib/ratchet"


def small_disk_on_host(bay: Bay) -> None:
    """Ratchet's folder on a file system of its own, with all that is in it."""
    bay.hosts[0].run(
        f"mkdir -p /mnt/small && mount -t tmpfs -o size=320m,mode=755 tmpfs /mnt/small && cp -a {STATE}/. /mnt/small/ "
        f"&& chmod --reference={STATE} /mnt/small && mount --move /mnt/small {STATE}"
    )


def fill_host(scene: Scene) -> None:
    scene.host.run(
        f"dd if=/dev/zero of={STATE}/filler bs=1M 2>/dev/null; dd if=/dev/zero bs=1 >>{STATE}/filler", check=False
    )


def give_back_host(scene: Scene) -> None:
    script = f"rm -f {STATE}/filler; mkdir -p /mnt/kept; cp -a {STATE}/. /mnt/kept/; umount {STATE}; "
    scene.host.run(script + f"cp -a /mnt/kept/. {STATE}/; rm -rf /mnt/kept")


def read_only_etc(scene: Scene) -> None:
    """From the moment the variant is live; the host cannot go back before it is writable again."""
    back = "mount -o remount,bind,rw /etc/nginx && umount -l /etc/nginx"
    scene.host.when_on_variant("mount --bind /etc/nginx /etc/nginx && mount -o remount,bind,ro /etc/nginx")
    time.sleep(READ_ONLY_SECONDS)
    scene.host.run(back)
    scene.restart_clock()


def small_disk_here(folder: str, kilobytes: int) -> Callable[[Bay], None]:
    def mount(bay: Bay) -> None:
        target = bay.project / folder
        target.mkdir(exist_ok=True)
        kept = bay.folder / "kept"
        shutil.copytree(target, kept, symlinks=True, dirs_exist_ok=True)
        size = kilobytes or sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) // 1024 + 4096
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", target], check=True)
        if not kilobytes:
            shutil.copytree(kept, target, symlinks=True, dirs_exist_ok=True)

    return mount


def fill_state(scene: Scene) -> None:
    """The disk of `.ratchet/`: the database and the audit log."""
    with (scene.bay.project / ".ratchet/filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return


def give_back(folder: str) -> Callable[[Scene], None]:
    """Take the small disk away; what was written to it stays."""

    def unmount(scene: Scene) -> None:
        target: Path = scene.bay.project / folder
        (target / "filler").unlink(missing_ok=True)
        kept = scene.bay.folder / "kept"
        shutil.copytree(target, kept, symlinks=True, dirs_exist_ok=True)
        subprocess.run(["umount", "-l", target], check=True)
        shutil.copytree(kept, target, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(kept)
        if (target / "locks").exists():
            # The lock is another file now: to whoever takes it the last holder is a stranger, whose row must run out.
            time.sleep(HOLD_SECONDS)

    return unmount


def faults() -> Iterator[Fault]:
    yield Fault(
        name="the host's disk full in mid-trial", group="disks-1", moment=moments.MID_TRIAL, inject=fill_host,
        prepare=small_disk_on_host, mend=give_back_host, exits=frozenset({3}), says="host-failed: .*(space|full)",
    )  # fmt: skip
    yield Fault(
        name="the host's disk full in mid-confirm", group="disks-1", moment=moments.step("committing"),
        inject=fill_host, prepare=small_disk_on_host, mend=give_back_host, experiment="keep",
        exits=frozenset({3}), says="commit-failed: .*(space|full)", seconds=BY_LEASE,
    )  # fmt: skip
    yield Fault(
        name=f"/etc/nginx read-only for {READ_ONLY_SECONDS} s from a switch on", group="disks-1",
        moment=moments.MID_TRIAL, inject=read_only_etc, exits=frozenset({3, 5}),
        says="[Rr]ead-only file system", seconds=AT_ONCE,
    )  # fmt: skip
    yield Fault(
        name="the controller's disk full: the run directory", group="disks-2", moment=moments.pairs(1),
        inject=lambda _: None, experiment="short", prepare=small_disk_here("runs", 24), mend=give_back("runs"),
        exits=frozenset({0, 3}), says="No space left|disk is full", seconds=BY_LEASE + 10,
    )  # fmt: skip
    yield Fault(
        name="the controller's disk full: the database", group="disks-2", moment=moments.MID_TRIAL, inject=fill_state,
        experiment="short", prepare=small_disk_here(".ratchet", 0), mend=give_back(".ratchet"),
        exits=frozenset({0, 3, 5}), says="full|disk", seconds=BY_LEASE + 10,
    )  # fmt: skip
