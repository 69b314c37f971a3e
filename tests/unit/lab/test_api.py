"""The lab's API as a client meets it: paths, methods, tokens and failures on order. No podman: nothing is booted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import uvicorn

from controller.lab.api import MAX_BODY_BYTES, Api
from controller.lab.resources import Cloud

TOKEN = "t" * 64


class Client:
    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, method: str, path: str, body: bytes = b"", token: str = TOKEN) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return requests.request(
            method, self._address + path, data=body, headers=headers, timeout=10, allow_redirects=False
        )

    def code(self, method: str, path: str, body: bytes = b"", token: str = TOKEN) -> tuple[int, str]:
        """The status, and the code of the error."""
        answer = self.ask(method, path, body, token)
        return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    application = Api(Cloud("unit", tmp_path_factory.mktemp("cloud"))).application()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server.should_exit = True
        thread.join()


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_health_asks_for_no_token(client: Client) -> None:
    assert client.ask("GET", "/_lab/health", token="").json() == {"lab": "unit"}


def test_ids_in_the_path_reach_the_resource(client: Client) -> None:
    made = client.ask("POST", "/v1/placement_groups", document(name="ids", type="spread")).json()["placement_group"]
    assert client.ask("GET", f"/v1/placement_groups/{made['id']}").json()["placement_group"] == made
    assert client.ask("PUT", f"/v1/placement_groups/{made['id']}", document(name="new")).status_code == 200
    assert client.code("GET", "/v1/servers/7/actions/8") == (404, "not_found")
    gone = client.ask("DELETE", f"/v1/placement_groups/{made['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.code("GET", f"/v1/placement_groups/{made['id']}") == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["/v1/moons", "/v1/servers/x", "/v1/servers/-1", f"/v1/servers/{'9' * 5000}", "/v1", "/", "/_lab/moons"]
)
def test_a_path_that_is_not_there_is_told_as_the_api_tells_errors(client: Client, path: str) -> None:
    answer = client.ask("GET", path)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "endpoint not found")


def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes(client: Client) -> None:
    answer = client.ask("PUT", "/v1/servers")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.json()["error"]["message"] == "/servers takes GET, HEAD, POST"
    assert client.code("DELETE", "/_lab/rate-limit") == (405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/v1/servers", "/_lab/faults"])
def test_a_wrong_token_is_refused_everywhere(client: Client, path: str) -> None:
    assert client.code("GET", path, token="short") == (401, "unauthorized")


def test_a_body_that_is_too_large_or_no_object_is_refused(client: Client) -> None:
    assert client.code("POST", "/v1/servers", b" " * (MAX_BODY_BYTES + 1)) == (422, "invalid_input")
    assert client.code("POST", "/v1/ssh_keys", b"[1]") == (400, "json_error")
    assert client.code("POST", "/_lab/faults", document(kind="moon")) == (422, "invalid_input")


def test_failures_come_as_ordered_and_a_lost_answer_after_the_work(client: Client) -> None:
    for fault in ({"kind": "error", "code": "conflict"}, {"kind": "lost_answer", "code": "timeout", "method": "POST"}):
        assert client.ask("POST", "/_lab/faults", document(path="/placement_groups", times=1, **fault)).ok
    wanted = document(name="lost", type="spread")
    assert client.code("GET", "/v1/placement_groups") == (409, "conflict")
    assert client.code("POST", "/v1/placement_groups", wanted) == (504, "timeout")
    assert client.code("POST", "/v1/placement_groups", wanted) == (409, "uniqueness_error")
    client.ask("POST", "/_lab/faults", document(kind="error"))
    assert client.ask("DELETE", "/_lab/faults").status_code == 204
    assert client.ask("GET", "/_lab/faults").json() == {"faults": []}


def test_the_rate_limit_is_told_and_kept(client: Client) -> None:
    token = "r" * 64
    assert client.ask("POST", "/_lab/rate-limit", document(remaining=1), token).status_code == 204
    allowed, refused = (client.ask("GET", "/v1/locations", token=token) for _ in range(2))
    assert (allowed.status_code, allowed.headers["RateLimit-Remaining"]) == (200, "0")
    assert (refused.status_code, refused.headers["RateLimit-Remaining"]) == (429, "0")
