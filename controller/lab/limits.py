"""Who may ask, and how often: tokens and the rate limit, per token."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from controller.lab.replies import ApiError

TOKEN_LENGTH = 64
READ_ONLY_PREFIX = "readonly"
REQUESTS_PER_HOUR = 3600


def authenticate(header: str | None) -> str:
    """The token of an Authorization header: any of 64 characters, or one that begins with `readonly`."""
    scheme, _, token = (header or "").partition(" ")
    good = token.startswith(READ_ONLY_PREFIX) or (len(token) == TOKEN_LENGTH and token.isalnum())
    if scheme.lower() != "bearer" or not good:
        raise ApiError("unauthorized", "unable to authenticate")
    return token


def check_permission(token: str, method: str) -> None:
    """A token that begins with `readonly` may only read."""
    if token.startswith(READ_ONLY_PREFIX) and method not in {"GET", "HEAD"}:
        raise ApiError("token_readonly", "the token is only allowed to perform GET requests")


class RateLimit:
    """3,600 requests, refilled by one a second."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def _current(self, token: str) -> float:
        now = self._clock()
        left, since = self._left.get(token, (float(REQUESTS_PER_HOUR), now))
        return min(REQUESTS_PER_HOUR, left + (now - since) * REQUESTS_PER_HOUR / 3600)

    def take(self, token: str) -> tuple[dict[str, str], bool]:
        """The RateLimit headers of this request, and whether it is within the limit."""
        with self._mutex:
            left = self._current(token)
            allowed = left >= 1
            left -= 1 if allowed else 0
            self._left[token] = (left, self._clock())
        headers = {
            "RateLimit-Limit": str(REQUESTS_PER_HOUR),
            "RateLimit-Remaining": str(int(left)),
            "RateLimit-Reset": str(math.ceil(self._clock() + REQUESTS_PER_HOUR - left)),
        }
        return headers, allowed

    def set_remaining(self, token: str, remaining: int) -> None:
        """For tests: as if all but `remaining` requests had been made."""
        with self._mutex:
            self._left[token] = (float(remaining), self._clock())
