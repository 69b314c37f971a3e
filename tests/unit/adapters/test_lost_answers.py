"""A server is created, and the answer is lost on its way: asked for again, what was made is found and taken."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from controller.adapters.hetzner import Access, Cloud, ServerOrder
from controller.model.errors import BadInput, HostFailed
from controller.model.fleet import Placement
from tests.unit.json_api import JsonHandler

ORDER = ServerOrder(
    name="web-1", image="debian-12", placement=Placement(type="cx23", location="fsn1"), user_data="",
    labels={"ratchet-fleet": "web"}, ssh_key=1, firewall=1, placement_group=1,
)  # fmt: skip
PAGE = {"page": 1, "per_page": 25, "previous_page": None, "next_page": None, "last_page": 1, "total_entries": 1}


class _Api:
    """A project of at most one server. `code`: how the first answer to a create is lost; `status`: of its creation."""

    def __init__(self) -> None:
        self.code = 504
        self.status = "success"
        self.servers: list[dict[str, Any]] = []
        self.asked = 0
        api = self

        class Handler(JsonHandler, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                if path.endswith("/actions"):
                    return self.answer(200, {"actions": [api.action()], "meta": {"pagination": PAGE}})
                if path.startswith("/actions/"):
                    return self.answer(200, {"action": api.action()})
                if path == "/servers/7":
                    return self.answer(200, {"server": api.servers[0]})
                return self.answer(200, {"servers": api.servers, "meta": {"pagination": PAGE}})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.asked += 1
                if api.servers:
                    error = {"code": "uniqueness_error", "message": "server name is already used", "details": None}
                    return self.answer(409, {"error": error})
                api.servers.append(server(asked["labels"]))
                return self.answer(api.code, {})

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def action(self) -> dict[str, Any]:
        error = None if self.status == "success" else {"code": "server_error", "message": "no"}
        return {
            "id": 1, "command": "create_server", "status": self.status, "progress": 100, "resources": [],
            "error": error,
        }  # fmt: skip


def server(labels: dict[str, str]) -> dict[str, Any]:
    ipv4 = {"id": 7, "ip": "192.0.2.7", "blocked": False, "dns_ptr": ""}
    network: dict[str, Any] = {"ipv4": ipv4, "ipv6": None, "floating_ips": []}
    return {"id": 7, "name": "web-1", "status": "running", "labels": labels, "public_net": network}


@pytest.fixture
def api() -> Iterator[_Api]:
    api = _Api()
    threading.Thread(target=api.http.serve_forever, daemon=True).start()
    yield api
    api.http.shutdown()
    api.http.server_close()


def cloud(api: _Api) -> Cloud:
    return Cloud(Access(f"http://127.0.0.1:{api.http.server_port}", "x" * 64), sleep=lambda _: None)


@pytest.mark.parametrize("code", [502, 504])
def test_a_server_whose_answer_was_lost_is_found_and_taken(code: int, api: _Api) -> None:
    api.code = code
    assert cloud(api).create_server(ORDER).address == "192.0.2.7"
    assert len(api.servers) == 1


def test_another_fleet_s_server_of_that_name_is_not_taken(api: _Api) -> None:
    api.servers = [server({"ratchet-fleet": "other"})]
    with pytest.raises(BadInput, match="is not this fleet's"):
        cloud(api).create_server(ORDER)


def test_a_server_that_was_made_and_whose_creation_failed_is_not_called_created(api: _Api) -> None:
    api.status = "error"
    with pytest.raises(HostFailed):
        cloud(api).create_server(ORDER)
