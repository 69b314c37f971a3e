"""A trial, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ratchet_agent.clock import monotonic_ns
from ratchet_agent.controller_line import Controller
from ratchet_agent.errors import AgentError
from ratchet_agent.lane import Lane, Stretch
from ratchet_agent.live_rows import LiveRows
from ratchet_agent.live_traffic import Traffic
from ratchet_agent.loop import WAKE_SECONDS, Loop
from ratchet_agent.plan import Plan
from ratchet_agent.prober import Prober
from ratchet_agent.record import Record
from ratchet_agent.rows import Rows, sending_order
from ratchet_agent.schedule import Mix, slot_order
from ratchet_agent.session import Session
from ratchet_agent.side_metrics import active_connections, host_counters, side_metrics
from ratchet_agent.summary import achieved_rate, held_against, paired_gain, saturated_rates, summarise

STATUS_PORT = 8089
# What a block may take beside its requests: a switch, the bodies, a busy host.
SETTLING_SECONDS = 5.0


class Trial:
    """One plan, carried out pair by pair under a session's lease."""

    def __init__(
        self, plan: Plan, loop: Loop, controller: Controller, session: Session, record: Record, *, live_log: Path
    ) -> None:
        self._plan = plan
        self._loop = loop
        self._controller = controller
        self._session = session
        self._record = record
        self._mix = Mix(plan)
        self._prober = Prober(loop, plan, self._mix, self._interrupted)
        self._live = session.confirmed
        self._armed_ns = monotonic_ns()
        self._traffic = Traffic(loop, plan, live_log, self._interrupted) if plan.live else None

    def run(self) -> str:
        """Probe the planned pairs; returns "complete" or "stopped". Raises AgentError."""
        run_pair = {"duet": self._duet_pair, "soak": self._soak_block}.get(self._plan.design, self._switchback_pair)
        began_ns = monotonic_ns()
        for pair in range(1, len(self._plan.pairs) + 1):
            due_ns = began_ns + round((pair - 1) * self._plan.pair_seconds * 1e9)
            if not self._wait_until(due_ns) or not run_pair(pair):
                return "stopped"
        return "complete"

    def _wait_until(self, due_ns: int) -> bool:
        """Wait until all hosts begin this pair (`pair_seconds`). False when the trial was stopped meanwhile."""
        while (left := due_ns - monotonic_ns()) > 0:
            if self._interrupted() or self._stopped():
                return False
            self._loop.step(min(WAKE_SECONDS, left / 1e9))
        return True

    def _interrupted(self) -> bool:
        """Looked at whenever the probe wakes. Passes a heartbeat on when the lease cannot wait for the block's end."""
        self._session.check()
        if self._controller.renew and self._session.renewal_is_due():
            self._renew()
        return bool(self._controller.stop_now)

    def _stopped(self) -> bool:
        if self._controller.renew:
            self._renew()
        return bool(self._controller.stop or self._controller.stop_now)

    def _renew(self) -> None:
        self._controller.renew = False
        self._session.renew()

    def _switch(self, configuration: str) -> dict[str, Any]:
        if self._live == self._session.confirmed:
            self._armed_ns = monotonic_ns()
        answer = self._session.ask("switch", "switch", configuration=configuration)
        self._live = configuration
        return answer

    def _come_back(self) -> None:
        """Where neither arm is the baseline, go over it when the lease could not be renewed for another pair."""
        plan = self._plan
        block = plan.block_seconds + plan.burn_in_seconds + plan.timeout_us / 1e6 + SETTLING_SECONDS
        needed = max(2 * block, plan.pair_seconds) + 2 * plan.lease_seconds
        if (
            self._live != self._session.confirmed
            and self._armed_ns + (plan.bound_seconds - needed) * 1e9 < monotonic_ns()
        ):
            self._switch(self._session.confirmed)

    def _switchback_pair(self, pair: int) -> bool:
        """Two blocks on the live instance, one after the other. False when the trial was stopped."""
        if self._session.confirmed not in self._plan.arms.values():
            self._come_back()
        for position, arm in enumerate(self._plan.pairs[pair - 1]):
            if self._stopped():
                return False
            configuration = self._plan.arms[arm]
            answer = self._switch(configuration)
            kind = LiveRows if self._plan.live else Rows
            rows = kind(self._plan, pair, 2 * pair - 1 + position, arm)
            lane = Lane(rows, configuration, self._plan.port, STATUS_PORT, None)
            if not self._run_blocks([lane], pair, answer):
                return False
        return True

    def _soak_block(self, pair: int) -> bool:
        """One block of the variant, which is switched to once. False when the trial was stopped."""
        if self._stopped():
            return False
        configuration = self._plan.arms["variant"]
        answer: dict[str, Any] = {}
        if pair == 1:
            answer = self._switch(configuration)
        lane = Lane(Rows(self._plan, pair, pair, "variant"), configuration, self._plan.port, STATUS_PORT, None)
        return self._run_blocks([lane], pair, answer)

    def _duet_pair(self, pair: int) -> bool:
        """Two blocks at once, one on each shadow instance. False when the trial was stopped."""
        if self._stopped():
            return False
        configurations = {
            instance: self._plan.arms[arm] for instance, arm in zip("ab", self._plan.pairs[pair - 1], strict=True)
        }
        answer = self._session.ask("assign", "switch", **configurations)
        lanes = []
        for position, (instance, arm) in enumerate(zip("ab", self._plan.pairs[pair - 1], strict=True)):
            rows = Rows(self._plan, pair, 2 * pair - 1 + position, arm)
            port = self._shadow_port(answer, instance, self._plan.port)
            if port is None:
                raise AgentError(
                    "switch",
                    f"the {arm}'s configuration {configurations[instance]} does not listen on port {self._plan.port}, "
                    "which the workload asks; correct workload.port, or the sites that the configuration serves",
                )
            status_port = self._shadow_port(answer, instance, STATUS_PORT)
            lanes.append(Lane(rows, configurations[instance], port, status_port, instance))
        return self._run_blocks(lanes, pair, answer)

    @staticmethod
    def _shadow_port(answer: dict[str, Any], instance: str, port: int) -> int | None:
        """Where the shadow instance listens for what its configuration calls `port`."""
        try:
            found = answer["ports"][instance].get(str(port))
        except (KeyError, TypeError, AttributeError):
            raise AgentError("session", "assign: the answer has no ports for the instance") from None
        return found if isinstance(found, int) and 0 < found < 65_536 else None

    def _run_blocks(self, lanes: list[Lane], pair: int, switched: dict[str, Any]) -> bool:
        """Probe what has just been switched to; record, then tell. False when it was interrupted: nothing is kept."""
        plan = self._plan
        try:
            for lane in lanes:
                lane.bodies = self._prober.sample_bodies(lane.port)
            host_before, before = host_counters(), self._figures(lanes)
            stretch = self._measure(lanes, pair)
            if stretch is None:
                return False
            after, host_after = self._figures(lanes), host_counters()
            active = [None if lane.status_port is None else active_connections(lane.status_port) for lane in lanes]
        finally:
            for lane in lanes:
                lane.close()
        host: dict[str, int | None] = {
            name: host_after[name] - host_before[name] for name in host_before if name in host_after
        }
        summaries = self._summaries(lanes, stretch)
        if summaries is None:
            return False
        blocks = []
        for position, (lane, (summary, served)) in enumerate(zip(lanes, summaries, strict=True)):
            blocks.append(
                {
                    "pair": pair,
                    "block": lane.rows.block,
                    "arm": lane.rows.arm,
                    "configuration": lane.configuration,
                    "started_at": stretch.started_at,
                    "seconds": stretch.seconds,
                    **held_against(summary, lane.configuration, _ran(before[position], after[position])),
                    "switch_seconds": _seconds(switched),
                    "bodies": lane.bodies,
                    "metrics": {
                        **side_metrics(before[position], after[position], served),
                        **host,
                        "active_connections": active[position],
                    },
                }
            )
        self._record.append(lines_in_due_order(plan, pair, [lane.rows for lane in lanes]), blocks, lanes)
        for block in blocks:
            self._controller.emit("block", block=block)
        return True

    def _measure(self, lanes: list[Lane], pair: int) -> Stretch | None:
        """The timed stretch. None when it was interrupted."""
        if self._traffic:
            return self._traffic.watch()
        return (self._prober.saturate if self._plan.saturation else self._prober.probe)(lanes, pair)

    def _summaries(self, lanes: list[Lane], stretch: Stretch) -> list[tuple[dict[str, Any], int]] | None:
        """By lane: what its rows say, and the requests that its CPU time was spent on. None when interrupted."""
        plan = self._plan
        if self._traffic:
            (live,) = (lane.rows for lane in lanes if isinstance(lane.rows, LiveRows))
            if not self._traffic.collect(live):
                return None
            return [(self._traffic.summarise(live), self._traffic.served)]
        probed = [lane.rows for lane in lanes if isinstance(lane.rows, Rows)]
        gain = None
        if plan.saturation:
            achieved = saturated_rates(probed)
        else:
            achieved = [achieved_rate(probed, plan.rate)] * len(probed)
            if plan.duet:
                objectives = {rows.arm: rows.objectives() for rows in probed}
                gain = paired_gain(objectives["control"], objectives["variant"])
        summaries = [
            summarise(
                rows,
                plan,
                self._mix.sequence(rows.pair),
                achieved=rate,
                clock_set=stretch.clock_set,
                probe_busy_share=stretch.busy_share(position),
            )
            for position, (rows, rate) in enumerate(zip(probed, achieved, strict=True))
        ]
        return [({**summary, "paired_gain": gain}, len(rows)) for summary, rows in zip(summaries, probed, strict=True)]

    def _figures(self, lanes: list[Lane]) -> list[dict[str, Any]]:
        """What the session tells of nginx' processes, a lane each; empty where it does not."""
        try:
            answer = self._session.ask("metrics", "metrics")
        except AgentError as error:
            if error.code != "metrics":
                raise
            return [{} for _ in lanes]
        instances = answer.get("instances")
        shadows = instances if isinstance(instances, dict) else {}
        found = [answer if lane.instance is None else shadows.get(lane.instance) for lane in lanes]
        return [figures if isinstance(figures, dict) else {} for figures in found]


def lines_in_due_order(plan: Plan, pair: int, blocks: Sequence[Rows | LiveRows]) -> Iterator[str]:
    """The CSV lines of the blocks that ran at once, or took turns."""
    if plan.saturation:
        probed = [rows for rows in blocks if isinstance(rows, Rows)]
        for _, position, row in sending_order(probed):
            yield blocks[position].line(row)
        return
    count = len(blocks[0])
    turns = slot_order(plan, pair, count) if plan.duet else bytes(count)
    for turn, position in enumerate(turns):
        yield blocks[position].line(turn // len(blocks))


def _ran(before: dict[str, Any], after: dict[str, Any]) -> list[str | None]:
    """What nginx showed in the two looks at it; empty when the session does not tell."""
    told = [figures["configuration"] for figures in (before, after) if "configuration" in figures]
    return [each if isinstance(each, str) else None for each in told] if len(told) == 2 else []


def _seconds(answer: dict[str, Any]) -> float:
    seconds = answer.get("seconds")
    return round(float(seconds), 6) if isinstance(seconds, int | float) and math.isfinite(seconds) else 0.0
