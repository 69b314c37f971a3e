"""The event loop, and its timer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time
from collections.abc import Callable

from ratchet_agent.clock import monotonic_ns

# How soon a timeout is noticed when nothing else wakes the probe.
WAKE_SECONDS = 0.1
LIBC = ctypes.CDLL(None, use_errno=True)
_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
PR_SET_TIMERSLACK = 29
_EVENTS_A_STEP = 8
_RECEIVE_BYTES = 128 << 10


class Loop:
    """One epoll; each descriptor has its handler. Handlers put up with events that no longer concern them."""

    def __init__(self) -> None:
        # What has been received stands here only until its handler returns, so that one buffer serves all connections.
        self.buffer = bytearray(_RECEIVE_BYTES)
        self.clear = bytearray(2 * _RECEIVE_BYTES)
        # How long it has waited for events in all.
        self.waited_ns = 0
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}

    def add(self, descriptor: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def step(self, seconds: float | None = None) -> None:
        """Wait for events, at most so long, and handle a few: what has fallen due meanwhile must not wait for all."""
        handlers = self._handlers
        asked_ns = monotonic_ns()
        found = self._epoll.poll(seconds, _EVENTS_A_STEP)
        self.waited_ns += monotonic_ns() - asked_ns
        for descriptor, events in found:
            handler = handlers.get(descriptor)
            if handler is not None:
                handler(events)


class Timer:
    """A periodic timerfd on the monotonic clock (os.timerfd_create is new in Python 3.13)."""

    def __init__(self) -> None:
        self.descriptor = LIBC.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")

    def start(self, first_ns: int, interval_ns: int) -> None:
        """Fire at `first_ns` (monotonic) and every interval after it; a first in the past fires at once."""
        specification = (ctypes.c_long * 4)(*divmod(interval_ns, 10**9), *divmod(first_ns, 10**9))
        if LIBC.timerfd_settime(self.descriptor, _TFD_TIMER_ABSTIME, specification, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def stop(self) -> None:
        self.start(0, 0)

    def acknowledge(self, _events: int = 0) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 8)

    def close(self) -> None:
        os.close(self.descriptor)
