"""What the probe reads from outside, fuzzed: plans, responses, encodings. Bad input is one clear error, no other."""

from __future__ import annotations

import contextlib
import copy
import gzip
import hashlib
import itertools
import json
import ssl
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.judge.schedule import draw_slots
from ratchet_agent.errors import AgentError
from ratchet_agent.plan_parsing import parse_plan
from ratchet_agent.response import MAX_BODY, ProtocolError, Response, decode_body
from ratchet_agent.schedule import Mix, slot_order
from ratchet_agent.tls_connection import tls_context

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _parse(line: bytes) -> Any:
    """The plan, or the error's text."""
    try:
        return parse_plan(line)
    except AgentError as error:
        assert error.code == "plan"
        return str(error)


@quick
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_plan_or_one_clear_error(line: bytes) -> None:
    assert isinstance(_parse(line), str)


@quick
@given(data=st.data())
def test_any_change_to_a_plan_is_accepted_or_named(plan_of: Any, data: st.DataObject) -> None:
    plan = copy.deepcopy(plan_of(80, workload={"scheme": "https", "connections": "fresh", "host": "www.example.org"}))
    plan["workload"]["requests"][0] |= {"method": "POST", "body": "x", "headers": {"X-A": "1"}, "weight": 2}
    place = plan
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
        else:
            place[key] = data.draw(JSON)
            break
    parsed = _parse(json.dumps(plan).encode())
    if isinstance(parsed, str):
        assert "\n" not in parsed and parsed.startswith(("plan", "the plan"))
    else:
        assert parsed.counted >= 1
        for request in parsed.requests:
            assert request.wire.count(b"\r\n\r\n") >= 1
        mix = Mix(parsed)
        assert len(list(itertools.islice(mix.sequence(1), 10))) == 10
        # Whatever is called a server name can be offered in TLS.
        tls_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=parsed.server_name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"design": "before-after"}, "plan.design: expected text that matches switchback|duet"),
        ({"pairs": [["control", "control"]]}, "plan.pairs[0]: not the arms of a pair in the design switchback"),
        ({"run": "../r"}, "plan.run: expected text"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"limits": None}, "plan.limits: expected an object"),
        ({"limits": {"rate_kept": 2}}, "plan.limits.rate_kept: expected a number from 0 to 1, got 2"),
        ({"limits": {"rate_kept": 1}}, "plan.limits.probe_busy_share: expected a number from 0 to 1, it is missing"),
        ({"block_seconds": float("nan")}, "plan.block_seconds: expected a number"),
        ({"workload": {"rate": 1e9}}, "plan.workload.rate: expected a number from 0.01 to 3000"),
        ({"workload": {"scheme": "https", "host": "a..b"}}, "plan.workload.host: 'a..b' cannot be a TLS server name"),
        ({"workload": {"requests": [{"path": "/", "headers": {"A": "1\r\nB: 2"}}]}}, "not a header that can be sent"),
        ({"workload": {"requests": [{"path": "/", "headers": {"Connection": "x"}}]}}, "the probe's own"),
        ({"workload": {"requests": [{"path": "/", "body": "x"}]}}, "only a POST has a body"),
        ({"workload": {"requests": [{"path": "/ x"}]}}, "plan.workload.requests[0].path: expected text"),
    ],
)
def test_a_bad_field_is_named_with_what_was_expected(change: dict[str, Any], words: str, plan_of: Any) -> None:
    parsed = _parse(json.dumps(plan_of(80, **change)).encode())
    assert isinstance(parsed, str) and words in parsed


def _read(pieces: list[bytes], *, no_body: bool = False) -> Any:
    """(complete, status, size, body) or "protocol"."""
    response = Response(no_body=no_body, capture=True)
    complete = False
    try:
        for piece in pieces:
            complete = response.feed(piece, len(piece))
    except ProtocolError:
        return "protocol"
    return complete, response.status, response.size, bytes(response.body or b"")


WHOLE = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
]


@quick
@given(whole=st.sampled_from(WHOLE), cuts=st.lists(st.integers(0, 120), max_size=8))
def test_a_response_is_the_same_in_whatever_pieces_it_arrives(whole: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(places) if end > start]
    assert _read(pieces) == (True, 200, len(whole), b"hello")


@quick
@given(st.sampled_from(WHOLE), st.integers(0, 150), st.binary(min_size=1, max_size=4))
def test_a_damaged_response_is_never_more_than_a_protocol_error(whole: bytes, place: int, damage: bytes) -> None:
    result = _read([whole[:place] + damage + whole[place + len(damage) :]])
    assert result == "protocol" or result[0] in {True, False}


@quick
@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate", "bare", "identity"]))
def test_a_decoded_body_is_what_was_encoded(body: bytes, coding: str) -> None:
    bare = zlib.compressobj(wbits=-15)
    encoded = {
        "gzip": lambda: gzip.compress(body),
        "deflate": lambda: zlib.compress(body),
        "bare": lambda: bare.compress(body) + bare.flush(),
        "identity": lambda: body,
    }[coding]()
    # The first bytes of a bare stream may look like zlib's wrapper by chance; nothing can tell them apart then.
    chance = coding == "bare" and len(encoded) > 1 and encoded[0] & 15 == 8 and int.from_bytes(encoded[:2]) % 31 == 0
    if not chance:
        name = b"deflate" if coding == "bare" else coding.encode()
        assert decode_body(name, encoded) == body


@quick
@given(st.binary(max_size=100), st.sampled_from([b"gzip", b"deflate", b"br", b"gzip, deflate"]))
def test_what_cannot_be_decoded_is_a_value_error(body: bytes, coding: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_body(coding, body)


def test_a_body_that_inflates_without_end_is_refused() -> None:
    bomb = gzip.compress(bytes(MAX_BODY + 2))
    with pytest.raises(ValueError, match="too large"):
        decode_body(b"gzip", bomb)


def test_the_order_within_slots_is_the_one_that_the_judge_draws(plan_of: Any) -> None:
    plan = parse_plan(json.dumps(plan_of(80, design="duet", seed=-3, trial=12)).encode())
    for pair in (1, 4):
        drawn = draw_slots(-3, 12, "here", pair)
        expected = [turn for _, b_first in zip(range(600), drawn, strict=False) for turn in (b_first, not b_first)]
        assert list(slot_order(plan, pair, 600)) == expected


def test_weights_are_spread_evenly_over_the_cycle(plan_of: Any) -> None:
    requests = [{"path": "/a", "weight": 6}, {"path": "/b", "weight": 2}, {"path": "/a", "weight": 2}]
    plan = parse_plan(json.dumps(plan_of(80, workload={"requests": requests}, pairs=2)).encode())
    mix = Mix(plan)
    assert mix.cycle == [0, 1, 0, 2, 0]
    assert [request.name for request in plan.requests] == ["GET /a", "GET /b", "GET /a #2"]
    digest = hashlib.sha256(b"7/here/1/2").digest()
    assert mix.offsets[1] == int.from_bytes(digest[:8], "big") % 5
