"""Backoff: pauses that grow, are spread by chance so that many waiters do not come back at once, and end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence

# Each pause is between half and one and a half of what it is on average.
SPREAD = 0.5


def spread(pauses: Sequence[float], draw: Callable[[], float] = random.random) -> Iterator[float]:
    """The pauses in seconds, each times a factor between 0.5 and 1.5; `draw` gives numbers from 0 to 1."""
    for pause in pauses:
        yield pause * (1 - SPREAD + 2 * SPREAD * draw())


def tries(pauses: Sequence[float], clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
    """The pause in seconds after each try; 0.0 after the last one.

    Tries that take long use up the pauses' time: the last one begins when that is over, at the latest.
    """
    end = clock() + sum(pauses)
    for pause in spread(pauses):
        left = end - clock()
        if left <= 0:
            break
        yield min(pause, left)
    yield 0.0
