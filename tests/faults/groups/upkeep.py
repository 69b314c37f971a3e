"""What servers live through all day, at every step of a run: upgrades, restarts, edits, full and read-only disks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

from tests.faults import moments
from tests.faults.fault import AT_ONCE, KILLED, PROMISED, Fault, Moment, Scene
from tests.faults.groups.processes import AGENT, SESSION
from tests.faults.host_state import KEEPER
from tests.packages import INSTALL_NGINX, REPACK_NGINX

RELOADS = "ratchet-faults-reloads"
FILLS = "ratchet-faults-fills"
UNFINISHED = "/etc/nginx/conf.d/zz-unfinished.conf"
READ_ONLY_SECONDS = 6
REBOOT = "systemctl reboot"
EDIT = f"echo 'server {{ listen 8557; location / {{' >{UNFINISHED}"
# Where the host went back by the flattened copy, a rollback returns to the tree.
FINISH_THE_EDIT = f"rm -f {UNFINISHED}; /usr/local/sbin/ratchet-host rollback"
# As systemd starts it.
START_AGAIN = "systemctl is-active nginx || { nginx -s stop; sleep 1; systemctl start nginx; }"

# Each step of a run, and the experiment whose run comes by there.
STEPS: list[tuple[Moment, str]] = [
    (moments.MID_TRIAL, "short"),
    (moments.step("checking on the live instance"), "keep"),
    (moments.SOAK, "keep"),
    (moments.step("committing"), "keep"),
    (moments.step("rolling back and verifying"), "short"),
]

RELOAD_ALL_THE_WHILE = (
    f"systemd-run --quiet --collect --unit={RELOADS} sh -c 'while sleep 1; do systemctl daemon-reload; done'"
)
UPGRADE_PACKAGE = REPACK_NGINX + INSTALL_NGINX
# As the package's own scripts do it.
UPGRADE = "/etc/init.d/nginx upgrade"
STOP_AND_START = "systemctl stop nginx; sleep 1; systemctl start nginx"
BY_HAND = "nginx -s stop; sleep 1; nginx"
WORKER = "pkill -KILL -o -P $(cat /run/nginx.pid)"
# Somebody keeps writing there: no page is free for longer than an instant.
FILL_RUN = (
    "mount -o remount,size=$(( $(df --block-size=1k --output=used /run | tail -n 1) + 512 ))k /run; "
    f"systemd-run --quiet --collect --unit={FILLS} "
    "bash -c 'while sleep 0.01; do cat /dev/zero >>/run/filler; done 2>/dev/null'; sleep 0.5"
)
EMPTY_RUN = f"systemctl stop {FILLS}; rm -f /run/filler; mount -o remount,size=20% /run"
WRITABLE = "mount -o remount,bind,rw /etc/nginx; umount -l /etc/nginx"
READ_ONLY = "mount --bind /etc/nginx /etc/nginx && mount -o remount,bind,ro /etc/nginx"

OURS = {
    "the agent": AGENT,
    "root's session": SESSION,
    "the keeper": f"systemctl kill --signal=KILL {KEEPER}",
    "a call of root's program": "pkill -KILL -f 'ratchet-[h]ost'",
}


def now(script: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        scene.host.run(script, check=False)

    return strike


def left_to_the_lease(script: str, *, undo: str = "true", seconds: float = 0.0) -> Callable[[Scene], None]:
    """While the variant is live: controller, agent and session are gone, and then this happens."""

    def strike(scene: Scene) -> None:
        # A controller that is stopped puts nothing back while the others are killed; the agent goes on without it.
        os.kill(scene.run.process.pid, signal.SIGSTOP)
        scene.host.when_on_variant(f"{SESSION}; {AGENT}; true")
        scene.run.kill()
        scene.restart_clock()
        struck = time.monotonic()
        scene.host.run(script, check=False)
        if script == REBOOT:
            scene.count_from_boot(struck)
        if seconds:
            time.sleep(seconds)
            scene.host.run(undo, check=False)
            scene.restart_clock()

    return strike


def read_only_for_a_while(scene: Scene) -> None:
    scene.host.run(READ_ONLY)
    time.sleep(READ_ONLY_SECONDS)
    scene.host.run(WRITABLE)
    scene.restart_clock()


def reboot(scene: Scene) -> None:
    struck = time.monotonic()
    scene.host.run(REBOOT, check=False)
    scene.count_from_boot(struck)


def mended(script: str) -> Callable[[Scene], None]:
    def mend(scene: Scene) -> None:
        scene.run.wait(180)
        scene.host.run(script, check=False)

    return mend


def under_the_lease() -> Iterator[Fault]:
    """Its hour is kept whatever goes on."""
    for name, inject, mend in (
        ("systemd reloaded every second", left_to_the_lease(RELOAD_ALL_THE_WHILE), f"systemctl stop {RELOADS}"),
        ("an upgrade of nginx's package", left_to_the_lease(UPGRADE_PACKAGE), "true"),
        ("an upgrade of nginx's program", left_to_the_lease(UPGRADE), "true"),
        ("nginx stopped and started", left_to_the_lease(STOP_AND_START), "true"),
        ("nginx stopped, and started by hand", left_to_the_lease(BY_HAND), START_AGAIN),
        ("one worker of nginx killed", left_to_the_lease(WORKER), "true"),
        ("the keeper killed", left_to_the_lease(OURS["the keeper"]), "true"),
        ("/run full", left_to_the_lease(FILL_RUN), EMPTY_RUN),
        ("/etc/nginx read-only beyond it", left_to_the_lease(READ_ONLY, undo=WRITABLE, seconds=PROMISED), WRITABLE),
        ("an unfinished file in conf.d", left_to_the_lease(EDIT), FINISH_THE_EDIT),
        ("a reboot", left_to_the_lease(REBOOT), "true"),
    ):
        yield Fault(
            name=f"{name}, and nobody left but the lease", group="upkeep-lease", moment=moments.MID_TRIAL,
            inject=inject, exits=frozenset({KILLED}), says="was broken off", alone=True, edited="conf.d" in name,
            seconds=AT_ONCE if name == "a reboot" else PROMISED, mend=mended(mend),
        )  # fmt: skip


def at_every_step() -> Iterator[Fault]:
    """A run may go on or end with it; it is on its baseline when it has ended, and says why."""
    survived = "baseline restored and verified|KEEP|committed|kept|REVERT"
    crashed = "-failed: .*new workers of nginx ended at once"
    failed = r"host-failed: |commit-failed: |could not be verified|failed: |REVERT "
    for number, (moment, experiment) in enumerate(STEPS, 1):
        group = f"upkeep-{number}"
        for name, script, mend, exits, says in (
            ("systemd reloaded every second", RELOAD_ALL_THE_WHILE, f"systemctl stop {RELOADS}", {0}, survived),
            # One that is killed while its switch is watched is one that the new configuration may have killed.
            ("one worker of nginx killed", WORKER, "true", {0, 3}, rf"{crashed}|\A(?s:(?!.*-failed: ).*)({survived})"),
            ("the keeper killed", OURS["the keeper"], "true", {0}, survived),
        ):
            yield Fault(
                name=f"{name}, at every step", group=group, moment=moment, inject=now(script), experiment=experiment,
                exits=frozenset(exits), says=says, seconds=None, mend=mended(mend),
            )  # fmt: skip
        for name, script, mend in (
            ("an upgrade of nginx's package", UPGRADE_PACKAGE, "true"),
            ("an upgrade of nginx's program", UPGRADE, "true"),
            ("nginx stopped and started", STOP_AND_START, "true"),
            ("nginx stopped, and started by hand", BY_HAND, START_AGAIN),
            *((f"{who} killed", script, "true") for who, script in OURS.items() if who != "the keeper"),
        ):
            yield Fault(
                name=f"{name}, at every step", group=group, moment=moment, inject=now(script), experiment=experiment,
                exits=frozenset({0, 3, 5}), says=f"{survived}|{failed}", seconds=None, mend=mended(mend),
            )  # fmt: skip
        yield Fault(
            name="/run full, at every step", group=group, moment=moment, inject=now(FILL_RUN), experiment=experiment,
            exits=frozenset({0, 3, 5}), says=f"{survived}|{failed}|[Ss]pace", seconds=PROMISED + 10,
            mend=mended(EMPTY_RUN),
        )  # fmt: skip
        yield Fault(
            name=f"/etc/nginx read-only for {READ_ONLY_SECONDS} s, at every step", group=group, moment=moment,
            inject=read_only_for_a_while, experiment=experiment, exits=frozenset({0, 3, 5}),
            says=f"{survived}|{failed}|[Rr]ead-only", seconds=None, mend=mended(WRITABLE),
        )  # fmt: skip
        yield Fault(
            name="an unfinished file in conf.d, at every step", group=group, moment=moment, experiment=experiment,
            inject=now(EDIT), exits=frozenset({0, 3, 5}), says=rf"zz-unfinished\.conf|{failed}|{survived}",
            seconds=PROMISED + 10, edited=True, mend=mended(FINISH_THE_EDIT),
        )  # fmt: skip
        yield Fault(
            name="host rebooted, at every step", group=group, moment=moment, inject=reboot, experiment=experiment,
            exits=frozenset({0, 3, 5}), says=f"{survived}|{failed}", seconds=AT_ONCE,
        )  # fmt: skip


def faults() -> Iterator[Fault]:
    yield from under_the_lease()
    yield from at_every_step()
