"""A part of Ratchet dies: the agent, the session, the keeper, ansible-playbook."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults import moments
from tests.faults.bay import Bay
from tests.faults.fault import AT_ONCE, BY_LEASE, PROMISED, Fault, Scene
from tests.faults.host_state import KEEPER

# Not of the shell that says so.
SESSION = "pkill -KILL -f 'ratchet-host [s]ession'"
AGENT = "pkill -KILL -f 'ratchet-agent [s]sh'"


def on_variant(script: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        scene.host.when_on_variant(script)
        scene.restart_clock()

    return strike


def kill_agent(scene: Scene) -> None:
    scene.host.run(AGENT)


def stop_keeper(scene: Scene) -> None:
    scene.host.run(f"systemctl stop {KEEPER}")


def mask_keeper(bay: Bay) -> None:
    """As somebody does who wants to be rid of a service that he does not know."""
    script = f"mkdir -p /run/hidden; mv /etc/systemd/system/{KEEPER} /run/hidden/; systemctl stop {KEEPER}; "
    script += f"ln -s /dev/null /etc/systemd/system/{KEEPER}; systemctl daemon-reload"
    bay.hosts[0].run(script)


def start_keeper(scene: Scene) -> None:
    scene.host.run(f"[ ! -e /run/hidden/{KEEPER} ] || mv /run/hidden/{KEEPER} /etc/systemd/system/")
    scene.host.run(f"systemctl daemon-reload; systemctl start {KEEPER}")


def kill_ansible(scene: Scene) -> None:
    """ansible-playbook and its workers, underneath the controller."""
    deadline = time.monotonic() + 10
    while not (pids := _playbooks(scene)):
        if time.monotonic() > deadline:
            raise RuntimeError("no ansible-playbook was seen")
        time.sleep(0.01)
    # It is killed at work, not while it reads its settings.
    time.sleep(scene.rng.uniform(0.2, 1.0))
    for pid in _playbooks(scene) or pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _playbooks(scene: Scene) -> list[int]:
    wanted = f"RATCHET_ANSIBLE_TAG={scene.bay.project}:".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and wanted in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def faults() -> Iterator[Fault]:
    failed = frozenset({3})
    yield Fault(
        name="the agent killed while the variant is live", group="processes-1", moment=moments.MID_TRIAL,
        inject=on_variant(AGENT), exits=failed, says="host-failed: ",
    )  # fmt: skip
    yield Fault(
        name="the agent killed in a duet", group="processes-1", moment=moments.MID_TRIAL, experiment="long-duet",
        inject=kill_agent, exits=failed, says="host-failed: ",
    )  # fmt: skip
    yield Fault(
        name="root's session killed while the variant is live", group="processes-1", moment=moments.MID_TRIAL,
        inject=on_variant(SESSION), exits=failed, says="host-failed: ", seconds=BY_LEASE,
    )  # fmt: skip
    yield Fault(
        name="root's session hangs (SIGSTOP) while the variant is live", group="processes-1", moment=moments.MID_TRIAL,
        inject=on_variant(SESSION.replace("KILL", "STOP")), exits=failed, says="host-failed: ",
        # In a look it owes its answer within 4 s; in a switch, which may take longer, the lease is first.
        seconds=BY_LEASE, alone=True,
    )  # fmt: skip
    yield Fault(
        name="the keeper stopped in mid-trial", group="processes-2", moment=moments.MID_TRIAL, inject=stop_keeper,
        exits=failed, says="host-failed: .*keeper", seconds=AT_ONCE, mend=start_keeper,
    )  # fmt: skip
    yield Fault(
        name="the keeper masked before the run: nothing is switched", group="processes-2", moment=moments.START,
        inject=lambda _: None, prepare=mask_keeper, exits=failed, says="keeper", mend=start_keeper,
    )  # fmt: skip
    yield Fault(
        name="the keeper hangs (SIGSTOP), and root's session killed", group="processes-2", moment=moments.MID_TRIAL,
        inject=on_variant(f"systemctl kill --kill-whom=main --signal=STOP {KEEPER}; {SESSION}"), exits=failed,
        says="host-failed: ", seconds=PROMISED,
    )  # fmt: skip
    for moment, experiment, exits, says in (
        (moments.step("staging"), "long", {3}, "ansible-playbook|the push gave no answer|killed"),
        (moments.step("committing"), "keep", {0, 3}, "commit-failed: |ansible-playbook"),
        (moments.step("refreshing the dashboards"), "keep", {0}, "dashboard|verified"),
    ):
        yield Fault(
            name="ansible-playbook killed underneath", group="processes-3", moment=moment, inject=kill_ansible,
            experiment=experiment, exits=frozenset(exits), says=says,
            seconds=None if exits == {0} else BY_LEASE + 5,
        )  # fmt: skip
