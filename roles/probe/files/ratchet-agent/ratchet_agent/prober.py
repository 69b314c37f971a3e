"""The timed stretches in which the probe asks."""

from __future__ import annotations

import array
import contextlib
import gc
import hashlib
import itertools
import resource
from collections.abc import Callable, Iterator

from ratchet_agent.client import Client
from ratchet_agent.clock import CLOCK_STEP_NS, clock_offset, monotonic_ns
from ratchet_agent.exchange import Exchange
from ratchet_agent.lane import Lane, Stretch
from ratchet_agent.loop import LIBC, PR_SET_TIMERSLACK, WAKE_SECONDS, Loop, Timer
from ratchet_agent.plan import Plan
from ratchet_agent.response import decode_body
from ratchet_agent.rows import Rows
from ratchet_agent.schedule import Mix, Turn, slot_order, turns_of

# Hashing bodies may not eat the patience of the controller, however slow the server.
SAMPLING_SECONDS = 10.0
# From setting the timer to the first request.
LEAD_NS = 2_000_000


class Saturated:
    """One arm of a saturation: its rows and requests, its connections, and how long the probe waited for them."""

    def __init__(self, rows: Rows, client: Client, requests: Iterator[int]) -> None:
        self.rows = rows
        self.client = client
        self.requests = requests
        self.waiting = 0
        # Connections that failed, until the next turn.
        self.resting = 0
        self.turn_ns = 0
        self.waited_ns = 0

    @property
    def busy_share(self) -> float:
        """The share of the counted turns in which no answer was waited for."""
        return round(1 - self.waited_ns / self.turn_ns, 4) if self.turn_ns else 0.0


class Prober:
    """Runs the timed stretches: every request when it is due, whatever became of the ones before.

    Args:
        interrupted: asked at every wake-up; true ends the stretch at once.
    """

    def __init__(self, loop: Loop, plan: Plan, mix: Mix, interrupted: Callable[[], bool]) -> None:
        self._loop = loop
        self._plan = plan
        self._mix = mix
        self._interrupted = interrupted
        self._most_connections = _raise_descriptor_limit()
        self._timer = Timer()
        loop.add(self._timer.descriptor, self._timer.acknowledge)
        # The default slack of 50 us would be added to every wait.
        LIBC.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)

    def probe(self, lanes: list[Lane], pair: int) -> Stretch | None:
        """Burn-in and block of the lanes, request by request in turns. None when it was interrupted."""
        plan = self._plan
        width = len(lanes)
        count = plan.burn_in + plan.counted
        turns = slot_order(plan, pair, count) if width == 2 else bytes(count)
        requests = plan.requests
        sequence = array.array("B", itertools.islice(self._mix.sequence(pair), count))
        interval_ns = plan.interval_ns
        # Rounded up: a timer that is a little early would leave the request to the next tick.
        tick_ns = -(-interval_ns // width)
        offset = clock_offset()
        clients = []
        first_ns = start_ns = 0

        def recorder(rows: Rows) -> Callable[[Exchange], None]:
            return lambda exchange: rows.record(exchange, start_ns, offset)

        probed = [lane.rows for lane in lanes if isinstance(lane.rows, Rows)]
        for lane, rows in zip(lanes, probed, strict=True):
            lane.client = self._client(lane.port, recorder(rows), share=width)
            clients.append(lane.client)
        step = self._loop.step
        interrupted = self._interrupted
        tick, ticks = 0, len(turns)
        gc.collect()
        gc.disable()
        try:
            first_ns = monotonic_ns() + LEAD_NS
            start_ns = first_ns + plan.burn_in * interval_ns
            started_at = (start_ns + offset) / 1e9
            due_ns = first_ns
            self._timer.start(first_ns, tick_ns)
            while tick < ticks or not all(client.quiet for client in clients):
                if interrupted():
                    return None
                step(WAKE_SECONDS)
                now = monotonic_ns()
                while tick < ticks and due_ns <= now:
                    slot = tick // width
                    clients[turns[tick]].submit(Exchange(slot, requests[sequence[slot]], due_ns))
                    tick += 1
                    due_ns = first_ns + tick * interval_ns // width
                    if tick == ticks:
                        self._timer.stop()
                for client in clients:
                    client.expire(now)
            seconds = (monotonic_ns() - first_ns) / 1e9
        finally:
            self._timer.stop()
            gc.enable()
        clock_set = abs(clock_offset() - offset) > CLOCK_STEP_NS
        if clock_set:
            for rows in probed:
                rows.forget_stamps()
        return Stretch(round(started_at, 6), round(seconds, 6), clock_set)

    def saturate(self, lanes: list[Lane], pair: int) -> Stretch | None:
        """Burn-in and block of the lanes, turn by turn. None when it was interrupted."""
        offset = clock_offset()
        gc.collect()
        gc.disable()
        try:
            first_ns = monotonic_ns()
            start_ns = 0
            arms = [self._saturated(lane, pair, first_ns, offset, share=len(lanes)) for lane in lanes]
            for turn in turns_of(self._plan, pair):
                if turn.counted and not start_ns:
                    start_ns = monotonic_ns()
                    for arm in arms:
                        arm.rows.burn_in = len(arm.rows)
                if not self._take_turn(arms[turn.position], turn):
                    return None
            seconds = (monotonic_ns() - first_ns) / 1e9
        finally:
            gc.enable()
        clock_set = abs(clock_offset() - offset) > CLOCK_STEP_NS
        for arm in arms:
            arm.rows.begin_at((start_ns - first_ns) // 1000)
            if clock_set:
                arm.rows.forget_stamps()
        shares = tuple(arm.busy_share for arm in arms)
        return Stretch(round((start_ns + offset) / 1e9, 6), round(seconds, 6), clock_set, shares)

    def _saturated(self, lane: Lane, pair: int, first_ns: int, offset: int, *, share: int) -> Saturated:
        def record(exchange: Exchange) -> None:
            arm.rows.record(exchange, first_ns, offset)
            arm.waiting -= 1
            arm.resting += exchange.error != ""

        if not isinstance(lane.rows, Rows):
            raise TypeError("live traffic cannot be saturated")
        lane.client = self._client(lane.port, record, share=share)
        arm = Saturated(lane.rows, lane.client, self._mix.sequence(pair))
        return arm

    def _take_turn(self, arm: Saturated, turn: Turn) -> bool:
        """Keep the arm's connections busy until the turn ends and all is answered. False when it was interrupted."""
        plan, client = self._plan, arm.client
        arm.resting = 0
        waited_ns, begun_ns = self._loop.waited_ns, monotonic_ns()
        end_ns = begun_ns + round(turn.seconds * 1e9)
        now = begun_ns
        while True:
            while now < end_ns and arm.waiting + arm.resting < plan.connections_open:
                arm.waiting += 1
                client.submit(Exchange(arm.rows.extend(), plan.requests[next(arm.requests)], now))
                now = monotonic_ns()
            if client.quiet:
                break
            if self._interrupted():
                return False
            self._loop.step(WAKE_SECONDS)
            now = monotonic_ns()
            client.expire(now)
        if turn.counted:
            arm.turn_ns += monotonic_ns() - begun_ns
            arm.waited_ns += self._loop.waited_ns - waited_ns
        return True

    def sample_bodies(self, port: int) -> dict[str, str]:
        """Ask for everything in the mix outside the timed stretch; name -> hash of the decoded body, or the error."""
        finished: list[Exchange] = []
        client = self._client(port, finished.append, capture=True)
        deadline = monotonic_ns() + round(SAMPLING_SECONDS * 1e9)
        found: dict[str, str] = {}
        try:
            for request in self._plan.requests:
                for _ in range(self._plan.body_sample):
                    exchange = Exchange(0, request, monotonic_ns(), capture=True)
                    client.submit(exchange)
                    while not exchange.done:
                        if self._interrupted():
                            return found
                        now = monotonic_ns()
                        client.expire(now if now < deadline else exchange.due_ns + self._plan.timeout_us * 1000)
                        if not exchange.done:
                            self._loop.step(WAKE_SECONDS)
                    outcome = _body_hash(exchange)
                    if found.setdefault(request.name, outcome) != outcome:
                        found[request.name] = "varies"
        finally:
            client.close()
        return found

    def _client(self, port: int, done: Callable[[Exchange], None], *, share: int = 1, capture: bool = False) -> Client:
        most = 1 if capture else self._most_connections // share
        return Client(self._loop, self._plan, port, done, most_connections=most)


def _body_hash(exchange: Exchange) -> str:
    body = exchange.response.body
    if exchange.error or body is None:
        return f"error:{exchange.error}"
    try:
        return hashlib.sha256(decode_body(exchange.response.encoding, bytes(body))).hexdigest()
    except ValueError:
        return "error:protocol"


def _raise_descriptor_limit() -> int:
    """How many connections may be open at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, soft - 64)
