"""Root's program takes any input, or refuses it with a sentence."""

from __future__ import annotations

import argparse
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratchet_host.command_line import identity_argument, lease_argument
from ratchet_host.errors import Refused
from ratchet_host.paths import ID, LABEL
from ratchet_host.session_input import parse_command
from ratchet_host.staging import parse_configurations

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"configurations": {"a": "\\ud800;"}}')
@example(b'{"configurations": {"a": "x;"}, "keep": true}')
@example(b'{"configurations": {"../a": "x;"}}')
def test_staging_takes_configurations_or_refuses_with_a_sentence(content: bytes) -> None:
    try:
        texts, keep = parse_configurations(content)
    except Refused as refused:
        assert str(refused)
    else:
        assert texts and 0 <= keep <= 1000 and all(LABEL.fullmatch(label) for label in texts)


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True), st.text("ab;{} \n", min_size=1))
)
def test_staging_keeps_every_byte_of_a_configuration(texts: dict[str, str]) -> None:
    usable = {label: text for label, text in texts.items() if text.strip()} or {"a": "x;"}
    taken, _ = parse_configurations(json.dumps({"configurations": usable}).encode())
    assert taken == {label: text.encode() for label, text in usable.items()}


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"command": "switch", "configuration": "0123456789abcdef\\n"}')
@example(b'{"command": "switch", "configuration": "0123456789abcdef", "more": 1}')
@example(b'{"command": ["switch"]}')
def test_a_session_takes_a_command_or_refuses_with_a_sentence(line: bytes) -> None:
    try:
        command = parse_command(line)
    except Refused as refused:
        assert str(refused)
    else:
        ids = [value for name, value in command.items() if name != "command"]
        assert all(ID.fullmatch(value) for value in ids)


@given(st.text(max_size=40))
@example("٣" * 2)
@example("1_0")
def test_only_ids_and_seconds_get_through_the_command_line(text: str) -> None:
    for check, valid in (
        (identity_argument, len(text) == 16 and set(text) <= set("0123456789abcdef")),
        (lease_argument, text.isascii() and text.isdigit() and len(text) <= 4 and 5 <= int(text) <= 3600),
    ):
        if valid:
            check(text)
        else:
            with pytest.raises(argparse.ArgumentTypeError):
                check(text)
