from __future__ import annotations

import pytest

from controller.lab.limits import REQUESTS_PER_HOUR, RateLimit, authenticate, check_permission
from controller.lab.replies import ApiError

TOKEN = "t" * 64


def test_a_token_of_64_characters_may_do_everything() -> None:
    assert authenticate(f"Bearer {TOKEN}") == TOKEN
    check_permission(TOKEN, "DELETE")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer short", f"Basic {TOKEN}", f"Bearer {'?' * 64}"])
def test_a_missing_or_wrong_token_is_unauthorized(header: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        authenticate(header)
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")


def test_a_read_only_token_may_only_read() -> None:
    token = authenticate("Bearer readonly-token")
    check_permission(token, "GET")
    with pytest.raises(ApiError) as caught:
        check_permission(token, "POST")
    assert (caught.value.status, caught.value.code) == (403, "token_readonly")


def test_the_rate_limit_refills_by_one_a_second() -> None:
    now = 1000.0
    limit = RateLimit(clock=lambda: now)
    headers, allowed = limit.take(TOKEN)
    assert allowed
    assert headers["RateLimit-Limit"] == "3600"
    assert headers["RateLimit-Remaining"] == "3599"
    limit.set_remaining(TOKEN, 1)
    assert limit.take(TOKEN)[1]
    headers, allowed = limit.take(TOKEN)
    assert not allowed
    assert headers["RateLimit-Remaining"] == "0"
    assert int(headers["RateLimit-Reset"]) == 1000 + REQUESTS_PER_HOUR
    now += 1
    assert limit.take(TOKEN)[1]
    assert limit.take("other")[1]
