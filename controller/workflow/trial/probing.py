"""Probe one trial: an agent a host, judged live after every pair, stopped when the judge has decided."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from controller.adapters.ssh import connect
from controller.judge.soak import SoakJudge
from controller.judge.verdict import Judge
from controller.model.answers import read_object
from controller.model.blocks import Block
from controller.model.errors import HostFailed, RatchetError
from controller.model.events import Notice, PairJudged
from controller.model.fleet import Host
from controller.model.trial import Judgement, Pair, TrialPlan
from controller.workflow.context import RunContext
from controller.workflow.trial.agent_plan import agent_plan, pair_seconds, pairs_at_once, patience_seconds
from controller.workflow.trial.phases import TRIAL, Phase

AGENT_COMMAND = "/usr/local/bin/ratchet-agent run"
# From hanging up on an agent until its host is given up: its line may be at something that has a limit of its own.
HUNG_UP_SECONDS = 15.0
# Of one host in one observation; whoever says more repeats himself.
NOTICES_TOLD = 20


@dataclass
class Observation:
    """What the agents measured and where each left its evidence."""

    judgement: Judgement | None = None
    sequence: list[str] = field(default_factory=list)
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, RatchetError] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False


class _Agent(threading.Thread):
    """One host's agent: reads its events into the shared queue; the judging thread sends it commands."""

    def __init__(self, host: Host, plan: dict[str, Any], patience: float, events: queue.Queue[tuple[str, Any]]) -> None:
        super().__init__(name=f"agent-{host.name}", daemon=True)
        self.host = host
        self._plan = plan
        self._patience = patience
        self._events = events
        self._channel: Any = None
        self._sending = threading.Lock()
        # What was to be sent before there was a line to send it on.
        self._waiting: list[str] = []

    def run(self) -> None:
        try:
            with connect(self.host, user=self.host.probe_user) as ssh, ssh.stream(AGENT_COMMAND) as channel:
                channel.send(json.dumps(self._plan))
                with self._sending:
                    self._channel = channel
                    for command in self._waiting:
                        channel.send(json.dumps({"command": command}))
                for line in channel.lines(timeout=self._patience):
                    self._events.put((self.host.name, self._parse(line)))
        except RatchetError as error:
            self._events.put((self.host.name, error))
        finally:
            self._channel = None
            self._events.put((self.host.name, None))

    def _parse(self, line: str) -> dict[str, Any] | RatchetError:
        try:
            event = read_object(line)
            if isinstance(event.get("event"), str):
                return event
        except ValueError:
            pass
        return HostFailed(
            f"the agent wrote something that is not an event: {line[:200]!r}",
            where=self.host.name,
            next_step="set the host up again: playbooks/site.yml",
        )

    def send(self, command: str) -> None:
        """Best effort: an agent that is gone is noticed by its reader."""
        with self._sending:
            channel = self._channel
            if channel is None:
                self._waiting.append(command)
                return
            try:
                channel.send(json.dumps({"command": command}))
            except (RatchetError, OSError):
                return

    def hang_up(self) -> None:
        """Close the line: the agent restores the baseline at once."""
        channel = self._channel
        if channel is not None:
            channel.close()


class Probing:
    """Runs the agents of one trial and folds their blocks into the judge."""

    def __init__(
        self, plan: TrialPlan, run_id: str, context: RunContext, judge: Judge | SoakJudge, phase: Phase = TRIAL
    ) -> None:
        self._plan = plan
        self._run_id = phase.host_run_id(run_id)
        self._context = context
        self._judge = judge
        self._phase = phase
        self._observation = Observation()
        self._half: dict[str, Block] = {}
        self._notices: Counter[str] = Counter()
        self._started = 0.0

    def observe(self) -> Observation:
        """Probe until the judge has decided, the schedule ends, a host fails, or the operator stops the run.

        Every agent has ended when this returns; each host has been put back on its baseline by its agent, or is
        put back by its lease. Failed hosts are in `failures`.
        """
        lease = self._context.fleet.settings.trials.lease_seconds
        patience = patience_seconds(self._plan)
        events: queue.Queue[tuple[str, Any]] = queue.Queue()
        hosts = [host for host in self._context.fleet.hosts if host.name in self._plan.hosts]
        agents = [_Agent(host, document, patience, events) for host, document in self._documents(hosts, lease)]
        self._started = time.monotonic()
        with self._context.claims.probed(self._plan.hosts):
            for agent in agents:
                agent.start()
            self._attend(agents, events, patience, heartbeat=min(5.0, lease / 4))
            for agent in agents:
                if agent.host.name not in self._observation.failures:
                    agent.join(timeout=10)
        self._observation.seconds = time.monotonic() - self._started
        return self._observation

    def _documents(self, hosts: list[Host], lease: int) -> Iterator[tuple[Host, dict[str, Any]]]:
        recorded = self._context.store.baselines(self._context.fleet.name)
        for host in hosts:
            baseline = recorded[host.name].configuration if host.name in recorded else None
            yield (
                host,
                agent_plan(
                    self._plan,
                    self._run_id,
                    host.name,
                    lease,
                    claim=self._context.claims.document,
                    baseline=baseline,
                ),
            )

    def _attend(
        self, agents: list[_Agent], events: queue.Queue[tuple[str, Any]], patience: float, heartbeat: float
    ) -> None:
        """Handle events and heartbeats until every agent has ended, or is given up.

        Words alone are no progress: an agent that talks has to bring a block within twice the patience, and to end
        within it once it was told to.
        """
        now = time.monotonic()
        running = {agent.host.name: now + 2 * patience for agent in agents}
        stopping, hung_up = False, math.inf
        next_beat = now + heartbeat
        while running:
            now = time.monotonic()
            stop = self._context.stop
            if stop.requested and not self._observation.interrupted:
                self._observation.interrupted = True
            if not stopping and (self._decided() or self._observation.interrupted or self._observation.failures):
                stopping = True
                running = dict.fromkeys(running, now + patience)
                # A block that would not count is broken off; an operator's first Ctrl-C lets it come to its end.
                command = "stop" if self._observation.interrupted else "conclude"
                for agent in agents:
                    agent.send(command)
            late = {host for host, deadline in running.items() if stop.at_once or now >= deadline}
            if late and not stopping:
                self._give_up(late, f"no block within {2 * patience:.0f} s, though it talks")
            elif late and now >= (hung_up := min(hung_up, now + HUNG_UP_SECONDS)):
                self._give_up(late, "it did not end when it was told to")
                return
            if now >= next_beat:
                next_beat = now + heartbeat
                for agent in agents:
                    agent.send("renew")
            for agent in (each for each in agents if each.host.name in late):
                agent.hang_up()
            try:
                host, event = events.get(timeout=0.2)
            except queue.Empty:
                continue
            if event is None:
                running.pop(host, None)
            elif not stopping and not isinstance(event, RatchetError) and event["event"] == "block":
                running[host] = now + 2 * patience
            self._take(host, event)

    def _take(self, host: str, event: Any) -> None:
        """What came from an agent's line: an event, why it broke, or None, its end."""
        if event is None:
            self._check_ended(host)
        elif isinstance(event, RatchetError):
            self._observation.failures.setdefault(host, event)
        else:
            self._handle(host, event)

    def _give_up(self, hosts: Iterable[str], what: str) -> None:
        for host in hosts:
            self._observation.failures.setdefault(
                host,
                HostFailed(
                    f"the agent was given up: {what}",
                    where=host,
                    next_step="its messages are in the host's journal: journalctl -t ratchet-agent -t ratchet-host",
                ),
            )

    def _decided(self) -> bool:
        judgement = self._observation.judgement
        return judgement is not None and judgement.decided

    def _check_ended(self, host: str) -> None:
        observation = self._observation
        if host not in observation.ends and host not in observation.failures and not observation.interrupted:
            observation.failures[host] = HostFailed(
                "the agent ended without saying why",
                where=host,
                next_step="its messages are in the host's journal: journalctl -t ratchet-agent -t ratchet-host",
            )

    def _handle(self, host: str, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "block":
            try:
                block = Block.model_validate(event.get("block"))
            except ValidationError as error:
                self._observation.failures.setdefault(
                    host,
                    HostFailed(
                        f"the agent sent a block that cannot be read: {error.errors()[0]['msg']}",
                        where=host,
                        next_step="agent and controller differ in version; run playbooks/site.yml",
                    ),
                )
                return
            self._fold(host, block)
        elif kind == "end":
            self._observation.ends[host] = event
        elif kind == "error":
            said = str(event.get("message", "no message"))
            self._observation.failures.setdefault(
                host,
                self._context.claims.refused({host: said})
                or HostFailed(
                    f"the agent stopped ({event.get('code', '?')}): {said}",
                    where=host,
                    next_step=f"controller status --fleet {self._context.fleet.name}",
                ),
            )
        elif kind == "notice":
            self._notices[host] += 1
            if self._notices[host] <= NOTICES_TOLD:
                self._context.observer(Notice(level="warning", text=str(event.get("message", ""))[:500], host=host))

    def _fold(self, host: str, block: Block) -> None:
        """Let the judge look at what is complete, unless it has decided."""
        if isinstance(self._judge, SoakJudge):
            if not self._decided():
                self._judged(host, block.pair, self._judge.add(host, block))
            return
        # Hold a pair's first block until its second comes.
        first = self._half.pop(host, None)
        if first is None or first.pair != block.pair:
            self._half[host] = block
            return
        if self._decided():
            return
        control, variant = (first, block) if first.arm == "control" else (block, first)
        pair = Pair(host=host, number=block.pair, control=control, variant=variant)
        self._judged(host, block.pair, self._judge.add(pair))

    def _judged(self, host: str, number: int, judgement: Judgement) -> None:
        self._observation.judgement = judgement
        self._observation.sequence.append(host)
        # In a soak every host has its own blocks; else the hosts share the pairs.
        planned = self._plan.timing.planned_pairs * (len(self._plan.hosts) if self._plan.design == "soak" else 1)
        rounds_left = (planned - judgement.pairs) / pairs_at_once(self._plan)
        self._context.observer(
            PairJudged(
                trial=self._plan.number,
                phase=self._phase.name,
                host=host,
                number=number,
                judgement=judgement,
                seconds=time.monotonic() - self._started,
                seconds_left_at_most=max(0.0, rounds_left * pair_seconds(self._plan)),
            )
        )
