"""The cloud's errors become ours by what a caller does about them; patience is bounded; the token stays unseen."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
import yaml
from hcloud import APIException
from hcloud.actions import Action, ActionFailedException

from controller.adapters import secrets
from controller.adapters.hetzner import Access, Unavailable, modern, read_access, user_data
from controller.adapters.hetzner.calls import BACKOFF_SECONDS, call, classify
from controller.adapters.hetzner.cloud import Cloud
from controller.adapters.hetzner.firewall import firewall_rules
from controller.adapters.secrets import read_secret
from controller.model.errors import BadInput, HostFailed, RatchetError, Transient
from controller.model.fleet import Placement
from tests.unit.json_api import JsonHandler


@pytest.fixture(autouse=True)
def forget_descriptors() -> None:
    """Each test is a process of its own as far as descriptors are concerned: their numbers come again."""
    secrets._of_descriptor.cache_clear()


def _failing(errors: list[Exception]) -> Callable[[], str]:
    def function() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    return function


def _api(code: str | int, details: Any = None) -> APIException:
    return APIException(code, "as ordered", details)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_api("unauthorized"), BadInput),
        (_api("token_readonly"), BadInput),
        (_api("forbidden"), BadInput),
        (_api("invalid_input"), BadInput),
        (_api("resource_unavailable"), Unavailable),
        (_api("placement_error"), Unavailable),
        (_api("resource_limit_exceeded"), HostFailed),
        (_api("protected"), HostFailed),
        (_api("something_new"), HostFailed),
        (_api("rate_limit_exceeded"), Transient),
        (_api("conflict"), Transient),
        (_api("locked"), Transient),
        (_api("resource_in_use"), Transient),
        (_api("service_error"), Transient),
        (_api(503), Transient),
        (_api("bad_gateway"), Transient),
        (requests.ConnectionError("refused"), Transient),
        (requests.Timeout("slow"), Transient),
        (ActionFailedException(Action(1, error={"code": "resource_unavailable", "message": "none"})), Unavailable),
        (ActionFailedException(Action(1, error={"code": "action_failed", "message": "broken"})), HostFailed),
        (KeyError("server"), HostFailed),
    ],
)
def test_each_error_is_named_by_what_to_do_and_has_a_next_step(error: Exception, kind: type[RatchetError]) -> None:
    failure = classify("creating web-1", error)
    assert type(failure) is kind
    assert failure.what.startswith("creating web-1: ")
    assert failure.next_step


def test_the_fields_that_the_api_complains_about_are_told() -> None:
    details = {"fields": [{"name": "server_type", "messages": ["is unknown", "is odd"]}]}
    assert "server_type: is unknown, is odd" in classify("creating web-1", _api("invalid_input", details)).what


def like(pauses: list[float], expected: Sequence[float]) -> bool:
    """As many, each within the spread of backoff."""
    return len(pauses) == len(expected) and all(
        mean / 2 <= pause <= mean * 1.5 for pause, mean in zip(pauses, expected, strict=True)
    )


def test_what_passes_by_itself_is_tried_again_with_growing_pauses() -> None:
    pauses: list[float] = []
    errors: list[Exception] = [requests.ConnectionError(), _api(503)]
    assert call("listing", _failing(errors), sleep=pauses.append) == "done"
    assert like(pauses, BACKOFF_SECONDS[:2])


def test_patience_ends_and_says_how_often_it_tried() -> None:
    pauses: list[float] = []
    with pytest.raises(HostFailed, match=r"cannot be reached.*\(tried 4 times\)"):
        call("listing", _failing([requests.ConnectionError()] * 9), sleep=pauses.append)
    assert like(pauses, BACKOFF_SECONDS)


def test_what_does_not_pass_by_itself_is_not_tried_again() -> None:
    pauses: list[float] = []
    with pytest.raises(BadInput):
        call("listing", _failing([_api("unauthorized")]), sleep=pauses.append)
    assert pauses == []


def test_the_token_comes_from_the_environment_a_file_a_descriptor_or_a_command_in_this_order(tmp_path: Any) -> None:
    (tmp_path / "token").write_text("from-file\n")
    reading, writing = os.pipe()
    os.write(writing, b"from-descriptor\n")
    os.close(writing)
    environment = {
        "HCLOUD_TOKEN_COMMAND": "printf 'from-command\\nsecond line\\n'",
        "HCLOUD_TOKEN_FD": str(reading),
        "HCLOUD_TOKEN_FILE": str(tmp_path / "token"),
        "HCLOUD_TOKEN": "from-environment",
        "HCLOUD_ENDPOINT": "http://127.0.0.1:8080/v1/",
    }
    found = []
    for name in ("HCLOUD_TOKEN", "HCLOUD_TOKEN_FILE", "HCLOUD_TOKEN_FD", "HCLOUD_TOKEN_COMMAND"):
        # A descriptor can be read once, but is asked for by each step of a command.
        access = [read_access(environment) for _ in range(2)][1]
        found.append(access.token)
        assert access.endpoint == "http://127.0.0.1:8080/v1"
        del environment[name]
    assert found == ["from-environment", "from-file", "from-descriptor", "from-command"]


def test_a_descriptor_is_closed_once_it_is_read_so_that_no_child_has_it() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"token")
    os.close(writing)
    read_access({"HCLOUD_TOKEN_FD": str(reading)})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


def test_the_token_is_not_in_what_is_printed() -> None:
    assert "secret" not in repr(Access("https://api.example/v1", "secret"))
    assert "secret" not in repr(read_secret({"HCLOUD_TOKEN": "secret"}, "HCLOUD_TOKEN"))


class _Parrot(JsonHandler, BaseHTTPRequestHandler):
    """An API that says in its error what it was sent."""

    def do_GET(self) -> None:
        error = {"code": "odd", "message": f"cannot take {self.headers['Authorization']}", "details": None}
        self.answer(400, {"error": error})


def test_an_api_that_quotes_the_token_does_not_bring_it_to_light() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Parrot) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cloud = Cloud(Access(f"http://127.0.0.1:{server.server_port}/v1", "planted-secret"))
        with pytest.raises(HostFailed, match=r"cannot take Bearer \*\*\*") as caught:
            cloud.servers("web")
        server.shutdown()
    assert "planted-secret" not in repr(caught.value) + str(caught.value)


class _Busy(JsonHandler):
    """Turns the first request away."""

    asked = 0

    def do_GET(self) -> None:  # noqa: N802 - the name is http.server's
        _Busy.asked += 1
        busy = {"error": {"code": "service_error", "message": "busy", "details": None}}
        self.answer(503, busy) if _Busy.asked == 1 else self.answer(200, {"servers": []})


def test_each_answer_of_the_api_is_logged_and_why_a_call_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="controller.adapters.hetzner")
    pauses: list[float] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Cloud(Access(f"http://127.0.0.1:{server.server_port}/v1", "planted-secret"), sleep=pauses.append).servers("web")
        server.shutdown()
    told = [re.sub(r"in \d+\.\d\d s", "in N s", record.getMessage()) for record in caplog.records]
    path = "GET /v1/servers?label_selector=ratchet-fleet%3Dweb&page=1&per_page=50"
    assert told == [
        f"{path}: 503 service_error in N s",
        f"listing servers: busy (service_error); again in {pauses[0]:.1f} s",
        f"{path}: 200 in N s",
    ]


@pytest.mark.parametrize(("old", "new"), [("cx11", "cx23"), ("cx22", "cx23"), ("cx52", "cx53"), ("cpx22", "cpx22")])
def test_a_type_that_is_no_longer_sold_is_replaced_by_its_successor(old: str, new: str) -> None:
    assert modern(Placement(type=old, location="fsn1")) == Placement(type=new, location="fsn1")


def test_only_ssh_is_bound_to_the_operators_networks() -> None:
    rules = {rule.port or rule.protocol: rule.source_ips for rule in firewall_rules(["192.0.2.0/24"])}
    assert rules.pop("22") == ["192.0.2.0/24"]
    assert rules == {key: ["0.0.0.0/0", "::/0"] for key in ("80", "443", "8088", "icmp")}


def test_user_data_makes_one_user_and_one_host_key_and_no_more() -> None:
    text = user_data(
        public_key="ssh-ed25519 USER u\n", host_private="PRIVATE\nKEY\n", host_public="ssh-ed25519 HOST h\n"
    )
    first, _, rest = text.partition("\n")
    assert first == "#cloud-config"
    document = yaml.safe_load(rest)
    (user,) = document["users"]
    assert (user["name"], user["lock_passwd"], user["ssh_authorized_keys"]) == ("ratchet", True, ["ssh-ed25519 USER u"])
    assert document["ssh_deletekeys"]
    assert document["ssh_keys"] == {"ed25519_private": "PRIVATE\nKEY\n", "ed25519_public": "ssh-ed25519 HOST h"}
    assert not {"packages", "runcmd", "write_files", "bootcmd"} & document.keys()


SERVER = {
    "id": 1,
    "name": "web-1",
    "status": "running",
    "created": "2026-01-01T00:00:00Z",
    "labels": {},
    "public_net": {"ipv4": {"ip": "192.0.2.1"}, "ipv6": None, "floating_ips": [], "firewalls": []},
    "server_type": {"id": 1, "name": "cx23"},
    "location": {"id": 1, "name": "fsn1"},
}
SERVERS: list[Any] = [
    *(None, [None], [{}], ["x"], [{"id": "x"}], [SERVER | {"created": "yesterday"}], [SERVER | {"id": "abc"}]),
    *([SERVER | {"public_net": None}], [SERVER | {"location": "fsn1"}], [SERVER | {"labels": "x"}]),
    [SERVER | {"public_net": {"ipv4": "x", "ipv6": None, "floating_ips": [], "firewalls": []}}],
]
NO_API = [b"", b"null", b"[]", b"<html>portal</html>", b'"x"', b"{}"]


@pytest.mark.parametrize("body", [*NO_API, *(json.dumps({"servers": each}).encode() for each in SERVERS)])
@pytest.mark.parametrize("status", [200, 401, 500])
def test_an_answer_of_any_shape_is_told_and_is_no_traceback(body: bytes, status: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    cloud = Cloud(Access(f"http://127.0.0.1:{server.server_address[1]}/v1", "t"), sleep=lambda _: None)
    asked: list[Callable[[], object]] = [
        lambda: cloud.servers("web"),
        lambda: cloud.orderable([Placement(type="cx23", location="fsn1")]),
        lambda: cloud.leftovers("web"),
        lambda: cloud.placement_group("web", 0, {}),
    ]
    try:
        for ask in asked:
            with suppress(RatchetError):
                ask()
    finally:
        server.shutdown()
        server.server_close()


def test_what_the_api_complains_about_may_have_any_shape() -> None:
    details = {"fields": ["x", None, {"name": "n", "messages": None}]}
    assert "n: " in classify("creating web-1", _api("invalid_input", details)).what
    failed = ActionFailedException(Action(1, error="broken"))  # type: ignore[arg-type]
    assert type(classify("creating web-1", failed)) is HostFailed
