"""`session`: the agent's switching under the lease, line by line, in both designs."""

from __future__ import annotations

import contextlib
import syslog
import time

from ratchet_host import paths
from ratchet_host.claim import Fence, extend_claim
from ratchet_host.configurations import confirmed, live, require_staged, shown
from ratchet_host.drift import drift
from ratchet_host.errors import Refused, explain
from ratchet_host.figures import ErrorLog, Figures
from ratchet_host.instance import master, require_marks, running, wait_verified, workers
from ratchet_host.lease import Lease, arm, begin_anew, disarm, lease_left, renew, require_keeper, require_lease
from ratchet_host.locks import Lock, changing, refuse_during_session
from ratchet_host.nginx import test
from ratchet_host.paths import configuration_file
from ratchet_host.processes import Process
from ratchet_host.restoring import restore
from ratchet_host.session_input import Ended, Lines, parse_command
from ratchet_host.shadow_places import INSTANCES, stop_shadows
from ratchet_host.shadows import Shadow, shadow_limits
from ratchet_host.sockets import sockets_of
from ratchet_host.switching import switch
from ratchet_host.system import emit, log
from ratchet_host.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Session:
    """What both designs share: the lease, the commands, and the way back."""

    design = ""
    own: tuple[str, ...] = ()

    def __init__(self, lease: int, bound: int, fence: Fence) -> None:
        self.lease = lease
        self.bound = bound
        self.fence = fence
        self.nginx: Process | None = None
        self._tested: set[tuple[str, str]] = set()

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        name = command["command"]
        if name in self.own:
            with changing():
                self.hold()
                if running() == confirmed():
                    # Nothing unconfirmed is live: the bound begins anew. The end does not: only heartbeats move it.
                    begin_anew(self.bound)
                answer = self.change(command)
                # Who was held up meanwhile has lost it.
                self.hold()
                return answer
        if name == "renew":
            self.fence.check()
            renew(self.lease)
            extend_claim(self.fence.run)
            return {}
        if name == "status":
            return self.status()
        if name == "metrics":
            return self.metrics()
        raise Refused(f"{name}: not in the design {self.design}")

    def hold(self) -> None:
        """Raises Refused unless the lease is this session's, the host its run's, and nginx the one it began with."""
        require_lease()
        self.fence.check()
        if require_master() != self.nginx:
            raise Refused(
                "nginx has another master process than this session began with: it died and was started again, or "
                "somebody restarted or upgraded it; the trial ends (journalctl -u nginx -u ratchet-keeper)"
            )

    def status(self) -> dict[str, Any]:
        parent = require_master()
        lease = Lease.read()
        pids = {"master": parent.pid, "workers": [worker.pid for worker in workers(parent)]}
        seconds = None if lease is None else round(lease.left, 1)
        return {
            "live": shown(live()),
            "confirmed": shown(confirmed()),
            "lease_seconds_left": seconds,
            "nginx_pids": pids,
        }

    def change(self, command: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def metrics(self) -> dict[str, Any]:
        raise NotImplementedError


def require_master() -> Process:
    parent = master()
    if parent is None:
        raise Refused("nginx is not running")
    return parent


class Switchback(Session):
    """Reloads of the live instance."""

    design = "switchback"
    own = ("switch",)

    def __init__(self, lease: int, bound: int, fence: Fence) -> None:
        super().__init__(lease, bound, fence)
        self._figures = Figures()
        self._errors = ErrorLog(lambda: paths.ERROR_LOG)

    def change(self, command: dict[str, Any]) -> dict[str, Any]:
        identity = command["configuration"]
        require_staged(identity)
        tested = (identity, Tree(configuration_file(identity)).fingerprint())
        if tested not in self._tested:
            problem = test(configuration_file(identity), identity)
            if problem:
                raise Refused(f"nginx refuses {identity}: {problem}")
            self._tested.add(tested)
        baseline = confirmed()
        if baseline and sockets_of(configuration_file(identity)) != sockets_of(configuration_file(baseline)):
            raise Refused(
                f"{identity} listens on other sockets than the baseline {baseline}: each switch would reset users' "
                "connections; measure it in the design duet"
            )
        return {"configuration": identity, "seconds": round(switch(identity, last=self.hold), 3)}

    def metrics(self) -> dict[str, Any]:
        parent = require_master()
        # What failed while somebody restarted it is not held against the file that it has read again.
        runs: dict[str, Any] = {"configuration": shown(running()) if parent == self.nginx else None}
        return runs | self._figures.read(parent) | self._errors.read()


class Duet(Session):
    """Two shadow instances at once; the live instance is not touched."""

    design = "duet"
    own = ("assign",)

    def __init__(self, lease: int, bound: int, fence: Fence) -> None:
        super().__init__(lease, bound, fence)
        self._shadows = [Shadow(name) for name in INSTANCES]
        self._limits: list[str] | None = None

    def change(self, command: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        for shadow in self._shadows:
            require_staged(command[shadow.name])
        if self._limits is None:
            self._limits = shadow_limits(require_master())
        try:
            ports = {shadow.name: shadow.begin(command[shadow.name], self._limits) for shadow in self._shadows}
            for shadow in self._shadows:
                shadow.finish(ports[shadow.name])
        except (Refused, OSError):
            stop_shadows()
            raise
        return {
            "a": command["a"],
            "b": command["b"],
            "ports": {name: {str(port): own for port, own in sorted(mapped.items())} for name, mapped in ports.items()},
            "seconds": round(time.monotonic() - started, 3),
        }

    def metrics(self) -> dict[str, Any]:
        return {"instances": {shadow.name: shadow.metrics() for shadow in self._shadows}}


def begin_session(session: Session) -> None:
    """Arm the lease, if nginx runs the baseline as it was confirmed. Raises Refused with everything as it was."""
    session.fence.check()
    if confirmed() is None:
        raise Refused("this host has no confirmed configuration yet; run playbooks/site.yml")
    differences = drift()
    if differences:
        raise Refused("edited by hand since the last confirm: " + ", ".join(differences))
    require_master()
    require_marks()
    if live() != confirmed() or not wait_verified():
        raise Refused(
            f"nginx does not run the baseline {confirmed()} (its workers show {running() or 'nothing of that kind'}); "
            "see sudo ratchet-host status, then: sudo ratchet-host rollback"
        )
    require_keeper()
    stop_shadows()
    arm(session.lease, session.bound)
    session.nginx = require_master()


def serve(session: Session, lines: Lines) -> None:
    """Answer commands until the session ends: returns after `end`, raises Ended otherwise."""
    while True:
        line = lines.next(lease_left)
        name = None
        try:
            command = parse_command(line)
            name = command["command"]
            if name == "end":
                return
            answer = {"ok": True, "command": name, **session.handle(command)}
        except (Refused, OSError) as error:
            log(f"session: {name}: {explain(error)}", syslog.LOG_WARNING)
            answer = {"ok": False, "command": name, "error": explain(error)}
        emit(answer)


def end_session() -> dict[str, Any]:
    """Back to the baseline; the lease stays armed, and tries again, when that cannot be shown."""
    with changing():
        try:
            restore()
        except (Refused, OSError) as error:
            log(f"the baseline could not be restored: {explain(error)}", syslog.LOG_CRIT)
            return {"ok": False, "command": "end", "configuration": shown(confirmed()), "verified": False} | {
                "error": f"the baseline could not be restored: {explain(error)}"
            }
        disarm()
    return {"ok": True, "command": "end", "configuration": shown(confirmed()), "verified": True}


def command_session(design: str, lease: int, bound: int, fence: Fence) -> int:
    lines = Lines()
    lock = Lock("session.lock")
    if not lock.take(1):
        refuse_during_session()
        if not lock.take(1):
            raise Refused("another session is running on this host")
    kind = Duet if design == "duet" else Switchback
    session = kind(lease, bound, fence)
    answer: dict[str, Any] = {}
    begun = False
    try:
        with changing():
            begin_session(session)
        begun = True
        log(f"session: {design}, lease {lease} s, baseline {confirmed()}")
        emit({"ok": True, "command": "ready", "confirmed": shown(confirmed()), "lease_seconds": lease})
        serve(session, lines)
    except Ended as ended:
        log(f"session: {ended}", syslog.LOG_WARNING)
    finally:
        # One that was refused has changed nothing, and leaves everything as it found it.
        if begun:
            answer = end_session()
        lock.free()
    with contextlib.suppress(OSError):
        emit(answer)
    return 0 if answer.get("ok") else 1
