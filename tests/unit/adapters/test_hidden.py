"""What a log must not hold is hidden in it, however it is written there."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from controller.adapters import secrets
from controller.adapters.secrets import end_of, hidden, read_secret, remember_environment
from controller.adapters.store import Store

PASSWORD = "s3cret/ä\"'+ @x"


@pytest.fixture(autouse=True)
def knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())


@pytest.mark.parametrize("name", ["HCLOUD_TOKEN", "HCLOUD_TOKEN_FILE", "HCLOUD_TOKEN_COMMAND"])
def test_the_token_is_hidden_whatever_it_was_read_from(tmp_path: Path, name: str) -> None:
    (tmp_path / "token").write_text("tok-1234\n")
    value = {"HCLOUD_TOKEN": "tok-1234", "HCLOUD_TOKEN_FILE": str(tmp_path / "token")}
    read_secret({name: value.get(name, f"cat {tmp_path}/token")}, "HCLOUD_TOKEN")
    assert hidden("the API says: no tok-1234 here") == "the API says: no *** here"


@pytest.mark.parametrize(
    "written",
    [
        PASSWORD,
        quote(PASSWORD, safe=""),
        quote_plus(PASSWORD),
        json.dumps({"p": PASSWORD}),
        repr(PASSWORD),
        f"postgresql://ratchet:{quote(PASSWORD, safe='')}@db.example:5432/ratchet",
    ],
)
def test_a_password_is_hidden_as_it_is_written(written: str) -> None:
    secrets.remember(PASSWORD)
    told = hidden(f"said: {written}; more")
    assert "s3cret" not in told and "***" in told
    assert told.startswith("said: ") and told.endswith("; more")


def test_the_store_has_the_password_of_its_address_hidden_and_no_other_part_of_it() -> None:
    address = "postgresql+psycopg://ratchet:pa55word@127.0.0.1:1/ratchet?sslmode=require&sslpassword=keypass"
    with pytest.raises(secrets.BadInput, match="cannot be opened"):
        Store(address)
    said = hidden("pa55word, keypass; ratchet requires 127.0.0.1, mode require")
    assert said == "***, ***; ratchet requires 127.0.0.1, mode require"


def test_a_secret_in_a_traceback_is_hidden() -> None:
    secrets.remember("tok-1234")
    try:
        raise ValueError("no such token: tok-1234")
    except ValueError as error:
        told = hidden("".join(traceback.format_exception(error)))
    assert "no such token: ***" in told and "test_hidden.py" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://u:pw@h/db refused", "postgresql://u:***@h/db refused"),
        ("connect to 'postgresql://u:p@ss@h/db'", "connect to 'postgresql://u:***@h/db'"),
        ("GET http://127.0.0.1:8080/v1/servers?page=1", "GET http://127.0.0.1:8080/v1/servers?page=1"),
        ("host=db password=pw user=u", "host=db password=*** user=u"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAA\n-----END OPENSSH PRIVATE KEY-----\nmore", None),
        ("-----BEGIN PRIVATE KEY-----\nAAA", None),
    ],
)
def test_a_secret_that_nobody_has_named_is_hidden_by_what_stands_before_it(text: str, told: str | None) -> None:
    assert hidden(text) == told or (told is None and "AAA" not in hidden(text))
    assert hidden(text).endswith("more") or "more" not in text


def test_variables_are_secret_by_their_names_and_paths_to_secrets_are_none() -> None:
    remember_environment(
        {
            "VENDOR_API_KEY": "0123456789",
            "FEATURE_AUTH": "true",
            "HCLOUD_TOKEN": "tok-1",
            "HCLOUD_TOKEN_FILE": "/run/token-file",
            "PATH": "/usr/bin:/bin",
        }
    )
    said = hidden("0123456789 true tok-1 /run/token-file /usr/bin:/bin")
    assert said == "*** true *** /run/token-file /usr/bin:/bin"


def test_the_end_of_what_somebody_said_begins_with_no_half_of_a_secret() -> None:
    secrets.remember("tok-1234567890")
    assert end_of("x" * 50 + " tok-1234567890 refused\n", longest=14) == "xx *** refused"
