"""Claims on the hosts themselves: what keeps two controllers apart that share neither machine nor database.

A claim is one process's, not a recorded step: who resumes a run claims its hosts again, as a later generation. It ends
by itself on the host (`ratchet-host claim`), so that a controller that is gone keeps nobody out for longer than
CLAIM_SECONDS. Every command that changes a host carries run and generation: one that comes late is refused there, at
the last moment before the change, and the run has lost that host for good.
"""

from __future__ import annotations

import math
import re
import shlex
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from controller.adapters.ssh import ask
from controller.model.answers import read_object
from controller.model.errors import FleetLocked, HostFailed
from controller.model.fleet import Host
from controller.workflow.fleet.hosts import on_each_host

PROGRAM = "sudo -n /usr/local/sbin/ratchet-host"
# Longer than any step that does not renew; the thread renews five times as often.
CLAIM_SECONDS = 300
RENEW_SECONDS = 60.0
# A host extends a claim on a session's word for an hour, then its controller has to speak for itself.
RENEW_PROBED_SECONDS = 1200.0
TICK_SECONDS = 5.0
# A confirm tests, reloads, and waits for old workers.
ASK_SECONDS = 90.0
# A host that has no claim at all, of a run that it does not know as ended.
FORGOTTEN = "has no claim on this host any more; nothing was changed"


def awake() -> float:
    """Seconds of a clock that runs on while this machine sleeps, as a host's claim does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Claims:
    """One process's claims on the hosts of its run. Without hosts it claims nothing, and its commands carry nothing.

    Args:
        holder: FleetHold's name: a host lets a holder replace its own earlier run's claim.
        generation: FleetHold's number: a host refuses an earlier process of the same run.
        lost: called once with what happened when a host is this run's no more. The work must then come to an end.
    """

    def __init__(
        self,
        hosts: Sequence[Host] = (),
        *,
        fleet: str = "",
        run_id: str = "",
        generation: int = 0,
        holder: str = "",
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._hosts = sorted(hosts, key=lambda host: host.name)
        self._fleet = fleet
        self._run_id = run_id
        self._generation = generation
        self._holder = holder
        self._lost = lost
        self._probed: frozenset[str] = frozenset()
        self._probing = threading.Lock()
        # When each host last said that it is this run's.
        self._heard: dict[str, float] = {}
        # Host -> why it is this run's no more; there is no way back.
        self._gone: dict[str, str] = {}

    @property
    def document(self) -> dict[str, Any] | None:
        """What an agent's session carries; None of a command that claims nothing."""
        return {"run": self._run_id, "generation": self._generation} if self._hosts else None

    @property
    def generation(self) -> int:
        """How often the fleet had been taken when this run took it; 0 of a run that claims nothing."""
        return self._generation

    @property
    def options(self) -> list[str]:
        """What a call of `ratchet-host` that changes something carries."""
        return ["--run", self._run_id, "--generation", str(self._generation)] if self._hosts else []

    @property
    def variables(self) -> dict[str, str]:
        """What a play that changes something carries (roles/variant/README.md)."""
        return {"variant_run": self._run_id, "variant_generation": str(self._generation)} if self._hosts else {}

    @property
    def everywhere(self) -> bool:
        """Whether every host could be claimed; a new one has no program for it yet."""
        return {host.name for host in self._hosts} <= set(self._heard)

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
        """Before a change on these hosts. Raises FleetLocked when one is this run's no more.

        A host that cannot be reached is no reason: the change itself will say so.
        """
        self._claim([host for host in self._hosts if host.name in names])
        gone = {name: why for name, why in sorted(self._gone.items()) if name in names}
        if gone:
            raise self._taken_over(gone)

    def still_ours(self, names: Collection[str]) -> list[str]:
        """Those of the hosts that this run has not lost."""
        self._claim([host for host in self._hosts if host.name in names])
        return sorted(set(names) - set(self._gone))

    def came_late(self, said: Mapping[str, str]) -> dict[str, str]:
        """Of commands that failed, those that the host refused because it is not this run's. `said`: host -> why."""
        late = re.compile(
            rf"run {re.escape(self._run_id)} (was taken over|has no claim on this host|goes on in another process).*",
            re.DOTALL,
        )
        return {name: found[0] for name, why in said.items() if self._hosts and (found := late.search(why))}

    def refused(self, said: Mapping[str, str]) -> FleetLocked | None:
        """The error of a run whose command came too late; None too when every such host could be claimed again.

        A host's claim goes with its power. Where this run's cannot have run out, nobody else was there meanwhile.
        """
        late = self.came_late(said)
        forgot = {name for name, why in late.items() if FORGOTTEN in why and self._silent(name) <= CLAIM_SECONDS}
        self._claim([host for host in self._hosts if host.name in forgot])
        self._gone |= {name: why for name, why in late.items() if name not in forgot}
        gone = {name: self._gone[name] for name in late if name in self._gone}
        return self._taken_over(gone) if gone else None

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
        words += ["--generation", str(self._generation)]

        def claim(host: Host) -> dict[str, Any]:
            return self._ran_out(host) or ask_program(
                host, *words, *(["--end", end[host.name]] if end and host.name in end else [])
            )

        answers, _ = on_each_host([host for host in hosts if host.name not in self._gone], claim)
        for name, answer in answers.items():
            self._note(name, answer)
        return {name: answer for name, answer in sorted(answers.items()) if not answer["ok"] and "claim" in answer}

    def _ran_out(self, host: Host) -> dict[str, Any] | None:
        """The refusal of a run whose claim has run out: who was there meanwhile, and what it left, it cannot know."""
        silent = self._silent(host.name)
        if silent <= CLAIM_SECONDS:
            return None
        held = ask_program(host, "status").get("claim")
        if held and held["run"] == self._run_id:
            return None
        why = (
            f"the claim of run {self._run_id} on this host ran out: it was last renewed {silent:.0f} s ago "
            "(this machine slept, or the host could not be reached)"
        )
        return {"ok": False, "error": why, "claim": held}

    def _silent(self, name: str) -> float:
        """Seconds since the host last said that it is this run's; below 0 when it never did."""
        return awake() - self._heard.get(name, math.inf)

    def _note(self, name: str, answer: dict[str, Any]) -> None:
        if answer["ok"]:
            self._heard[name] = awake()
        elif "claim" in answer and name in self._heard:
            held, told = answer["claim"], str(answer["error"])
            whose = f": it is run {held['run']}'s, of {held['holder']}, since {held['since']}" if held else ""
            self._gone[name] = told if held and str(held["run"]) in told else f"{told}{whose}"

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

    def _taken_over(self, gone: Mapping[str, str]) -> FleetLocked:
        why = next(iter(gone.values()))
        others = f" (and {len(gone) - 1} more hosts)" if len(gone) > 1 else ""
        return FleetLocked(
            f"{why}{others}",
            where=", ".join(gone),
            next_step="nothing was restored there, since it is not this run's any more (leases put the baseline back "
            f"by themselves); see controller status --fleet {self._fleet}",
        )

    def _keep_renewing(self, ending: threading.Event) -> None:
        tick = renewed = probed_renewed = awake()
        while not ending.wait(TICK_SECONDS):
            now = awake()
            slept, tick = now - tick > RENEW_SECONDS, now
            if not slept:
                # The heartbeats of this very process have the probed hosts' sessions speak for it.
                self._heard |= {name: now for name in self._probed if name in self._heard}
            if slept or now - renewed >= RENEW_SECONDS:
                everyone = slept or now - probed_renewed >= RENEW_PROBED_SECONDS
                self._claim([host for host in self._hosts if everyone or host.name not in self._probed])
                renewed, probed_renewed = now, now if everyone else probed_renewed
            if self._gone:
                self._lost(self._taken_over(dict(sorted(self._gone.items()))).what)
                return

    def _release(self) -> None:
        """What cannot be reached is released by time."""
        ours = [host for host in self._hosts if host.name not in self._gone]
        on_each_host(ours, lambda host: ask_program(host, "release", *self.options, attempts=1))


def ask_program(host: Host, *words: str, attempts: int = 3) -> dict[str, Any]:
    """The answer of one command of `ratchet-host` that may run twice. Raises HostFailed when there is none in time."""
    command = f"{PROGRAM} {shlex.join(words)}"
    code, out, err = ask(host, host.admin_user, command, timeout=ASK_SECONDS, attempts=attempts)
    try:
        answer = read_object(out)
        complete = isinstance(answer["ok"], bool) and isinstance(answer.get("claim", {}), dict | None)
    except (ValueError, KeyError):
        complete = False
    if not complete:
        raise HostFailed(
            f"ratchet-host {words[0]} gave no answer (exit {code}): {(err or out).strip()[:300] or 'no output'}",
            where=host.name,
            next_step="set the host up: ansible-playbook -i inventory/FLEET playbooks/site.yml",
        )
    return answer
