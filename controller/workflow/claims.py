"""Claims on the hosts themselves: what keeps two controllers apart that share neither machine nor database.

A claim is one process's, not a recorded step: who resumes a run claims its hosts again. It ends by itself on the host
(`ratchet-host claim`), so that a controller that is gone keeps nobody out for longer than CLAIM_SECONDS.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from controller.adapters.ssh import ask
from controller.model.errors import FleetLocked, HostFailed
from controller.model.fleet import Host
from controller.workflow.hosts import on_each_host

PROGRAM = "sudo -n /usr/local/sbin/ratchet-host"
# Longer than any step that does not renew; the thread renews five times as often.
CLAIM_SECONDS = 300
RENEW_SECONDS = 60.0
# A confirm tests, reloads, and waits for old workers.
ASK_SECONDS = 90.0


class Claims:
    """One process's claims on the hosts of its run. Without hosts it claims nothing.

    Args:
        holder: FleetHold's name: a host lets a holder replace its own earlier run's claim.
        lost: called once with what happened when another run has claimed a host. The work must then come to an end.
    """

    def __init__(
        self,
        hosts: Sequence[Host] = (),
        *,
        fleet: str = "",
        run_id: str = "",
        holder: str = "",
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._hosts = sorted(hosts, key=lambda host: host.name)
        self._fleet = fleet
        self._run_id = run_id
        self._holder = holder
        self._lost = lost
        self._probed: frozenset[str] = frozenset()
        self._probing = threading.Lock()

    @contextmanager
    def held(self, *, by_force: bool = False) -> Iterator[None]:
        """Claim every host that can be reached, renew while the block runs, release at its end.

        All or nothing: raises FleetLocked, with nothing claimed, when another live run has a host, unless `by_force`.
        """
        ending = threading.Event()
        thread = threading.Thread(target=self._keep_renewing, args=(ending,), name="claims", daemon=True)
        try:
            self._take(by_force=by_force)
            thread.start()
            yield
        finally:
            ending.set()
            if thread.is_alive():
                thread.join()
            self._release()

    def renew(self, names: Collection[str]) -> None:
        """Before a change on these hosts. Raises FleetLocked when another run has claimed one meanwhile.

        A host that cannot be reached is no reason: the change itself will say so.
        """
        taken = self._claim([host for host in self._hosts if host.name in names])
        if taken:
            raise self._locked(taken)

    def still_ours(self, names: Collection[str]) -> list[str]:
        """Those of the hosts that no other run has claimed."""
        taken = self._claim([host for host in self._hosts if host.name in names])
        return sorted(set(names) - set(taken))

    @contextmanager
    def probed(self, names: Collection[str]) -> Iterator[None]:
        """These hosts' sessions renew the claim themselves: a login would only disturb what they measure.

        Several may be entered at once, each for hosts of its own.
        """
        with self._probing:
            self._probed |= frozenset(names)
        try:
            yield
        finally:
            with self._probing:
                self._probed -= frozenset(names)

    def _take(self, *, by_force: bool) -> None:
        # The first one alone: of two controllers that start at once, one gets it and then all the others.
        taken = self._claim(self._hosts[:1])
        if not taken or by_force:
            taken |= self._claim(self._hosts[1:])
        if by_force and taken:
            others = {name: str(answer["claim"]["run"]) for name, answer in taken.items() if answer["claim"]}
            taken = self._claim([host for host in self._hosts if host.name in taken], end=others)
        if taken:
            raise self._locked(taken)

    def _claim(self, hosts: Sequence[Host], end: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
        """Claim or renew; returns host -> its answer, for those that another run has. `end`: host -> the run to end."""
        words = ["claim", "--holder", self._holder, "--run", self._run_id, "--seconds", str(CLAIM_SECONDS)]

        def claim(host: Host) -> dict[str, Any]:
            return ask_program(host, *words, *(["--end", end[host.name]] if end and host.name in end else []))

        answers, _ = on_each_host(list(hosts), claim)
        return {name: answer for name, answer in sorted(answers.items()) if not answer["ok"] and "claim" in answer}

    def _locked(self, taken: dict[str, dict[str, Any]]) -> FleetLocked:
        name, answer = next(iter(taken.items()))
        others = f" (and {len(taken) - 1} more hosts)" if len(taken) > 1 else ""
        next_step = f"see what is going on: controller status --fleet {self._fleet}"
        if answer["claim"]:
            next_step = (
                f"wait for it to end; if it is dead, its claim runs out in {answer['claim']['seconds_left']:.0f} s. "
                f"To end it now: controller rollback --fleet {self._fleet} --take-over"
            )
        return FleetLocked(f"{answer['error']}{others}", where=name, next_step=next_step)

    def _keep_renewing(self, ending: threading.Event) -> None:
        while not ending.wait(RENEW_SECONDS):
            taken = self._claim([host for host in self._hosts if host.name not in self._probed])
            if taken:
                self._lost(str(self._locked(taken).what))
                return

    def _release(self) -> None:
        """What cannot be reached is released by time."""
        on_each_host(self._hosts, lambda host: ask_program(host, "release", "--run", self._run_id, attempts=1))


def ask_program(host: Host, *words: str, attempts: int = 3) -> dict[str, Any]:
    """The answer of one command of `ratchet-host` that may run twice. Raises HostFailed when there is none in time."""
    command = f"{PROGRAM} {shlex.join(words)}"
    code, out, err = ask(host, host.admin_user, command, timeout=ASK_SECONDS, attempts=attempts)
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "ok" not in answer:
        raise HostFailed(
            f"ratchet-host {words[0]} gave no answer (exit {code}): {(err or out).strip()[:300] or 'no output'}",
            where=host.name,
            next_step="set the host up: ansible-playbook -i inventory/FLEET playbooks/site.yml",
        )
    return answer
