"""Users, for tests of live traffic: a few clients that ask for some paths at a steady pace while a test needs them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from types import TracebackType
from typing import Self

CLIENTS = 4


class Traffic:
    """Asks `host:port` for the paths in turn, `rate` times a second over kept connections, within a `with` block.

    Attributes:
        asked: requests so far.
    """

    def __init__(self, host: str, port: int, paths: list[str], *, rate: float) -> None:
        self._address = (host, port)
        self._paths = itertools.cycle(paths)
        self._pause = CLIENTS / rate
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.asked = 0
        self._clients = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for client in self._clients:
            client.join(10)

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=5)
        due = time.monotonic() + number * self._pause / CLIENTS
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic())
            with self._lock:
                path = next(self._paths)
                self.asked += 1
            # A reload closes kept connections: a browser would ask once more, and so would the next turn.
            try:
                connection.request("GET", path)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
        with contextlib.suppress(OSError):
            connection.close()
