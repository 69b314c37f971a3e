"""Every answer of the lab is one that the published API description allows."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def client(contract_client: Any) -> Any:
    return contract_client()


def settle(client: Any, *actions: dict[str, Any]) -> None:
    deadline = time.monotonic() + 90
    for action in actions:
        while True:
            now = client.ask("GET", f"/actions/{action['id']}", expect=200)["action"]
            if now["status"] != "running":
                break
            assert time.monotonic() < deadline, f"still running: {now}"
            time.sleep(0.2)
        assert now["status"] == "success", now


def test_the_catalog_is_as_described(client: Any) -> None:
    for kind in ("locations", "server_types", "images"):
        listed = client.ask("GET", f"/{kind}", expect=200)[kind]
        one = client.ask("GET", f"/{kind}/{listed[0]['id']}", expect=200)
        assert next(iter(one.values())) == listed[0]
        assert client.ask("GET", f"/{kind}", name=listed[0]["name"])[kind] == [listed[0]]
        assert client.ask("GET", f"/{kind}/999999999", expect=404)["error"]["code"] == "not_found"
    client.ask("GET", "/pricing", expect=200)


def test_types_that_are_no_longer_sold_are_listed_and_refused(client: Any) -> None:
    old = client.ask("GET", "/server_types", name="cx11")["server_types"][0]
    assert old["deprecated"] and not any(place["available"] for place in old["locations"])
    body = {"name": "old", "server_type": "cx11", "image": "debian-12"}
    assert client.ask("POST", "/servers", body, expect=422)["error"]["code"] == "invalid_input"


def test_datacenters_are_gone(client: Any) -> None:
    assert client.ask("GET", "/datacenters", expect=410)["error"]["code"] == "deprecated_api_endpoint"


def test_named_resources_are_as_described(client: Any, lab_session: Any) -> None:
    key_body = {"name": "contract", "public_key": lab_session.new_public_key("contract"), "labels": {"a": "b"}}
    for kind, body in {"ssh_key": key_body, "placement_group": {"name": "contract", "type": "spread"}}.items():
        made = client.ask("POST", f"/{kind}s", body, expect=201)[kind]
        assert client.ask("POST", f"/{kind}s", body, expect=409)["error"]["code"] == "uniqueness_error"
        assert client.ask("GET", f"/{kind}s/{made['id']}", expect=200)[kind] == made
        changed = client.ask("PUT", f"/{kind}s/{made['id']}", {"name": "new", "labels": {"x": ""}}, expect=200)[kind]
        assert (changed["name"], changed["labels"]) == ("new", {"x": ""})
        assert client.ask("GET", f"/{kind}s", label_selector="x", sort="name:desc")[f"{kind}s"] == [changed]
        client.ask("DELETE", f"/{kind}s/{made['id']}", expect=204)
        client.ask("GET", f"/{kind}s/{made['id']}", expect=404)
    assert client.ask("POST", "/ssh_keys", {"name": "x", "public_key": "no"}, expect=422)["error"]["details"]["fields"]


def test_a_servers_life_is_as_described(client: Any) -> None:
    group = client.ask("POST", "/placement_groups", {"name": "spread", "type": "spread"})["placement_group"]
    body = {
        "name": "contract-1",
        "server_type": "cx23",
        "image": "debian-12",
        "location": "nbg1",
        "labels": {"role": "contract"},
        "placement_group": group["id"],
        "start_after_create": False,
    }
    made = client.ask("POST", "/servers", body, expect=201)
    server = made["server"]
    assert made["root_password"]
    assert server["status"] == "initializing" and server["locked"]
    assert server["public_net"]["ipv4"]["ip"] and server["public_net"]["ipv6"] is None
    path = f"/servers/{server['id']}"
    settle(client, made["action"], *made["next_actions"])
    assert client.ask("GET", path)["server"]["status"] == "off"
    assert client.ask("GET", f"/placement_groups/{group['id']}")["placement_group"]["servers"] == [server["id"]]
    assert client.ask("DELETE", f"/placement_groups/{group['id']}", expect=409)["error"]["code"] == "resource_in_use"
    assert client.ask("POST", "/servers", body, expect=409)["error"]["code"] == "uniqueness_error"
    for verb, status in {"poweron": "running", "reset": "running", "poweroff": "off"}.items():
        settle(client, client.ask("POST", f"{path}/actions/{verb}", {}, expect=201)["action"])
        assert client.ask("GET", path)["server"]["status"] == status
    changed = client.ask("PUT", path, {"name": "contract-2", "labels": {}}, expect=200)["server"]
    assert (changed["name"], changed["labels"]) == ("contract-2", {})
    listed = client.ask("GET", f"{path}/actions", expect=200, status="success", sort="id:desc")["actions"]
    assert [action["command"] for action in listed][-1] == "create_server"
    action = listed[0]
    assert client.ask("GET", f"{path}/actions/{action['id']}")["action"] == action
    assert client.ask("GET", f"/servers/actions/{action['id']}")["action"] == action
    assert client.ask("GET", "/actions", id=[action["id"], listed[1]["id"]])["actions"]
    client.ask("GET", "/servers/actions", expect=200, per_page=2)
    settle(client, client.ask("DELETE", path, expect=200)["action"])
    client.ask("GET", path, expect=404)
    client.ask("DELETE", f"/placement_groups/{group['id']}", expect=204)


def test_firewalls_are_as_described(client: Any) -> None:
    rule = {
        "direction": "in",
        "protocol": "tcp",
        "port": "22",
        "source_ips": ["0.0.0.0/0", "::/0"],
        "description": "ssh",
    }
    selector = {"type": "label_selector", "label_selector": {"selector": "nothing=here"}}
    made = client.ask("POST", "/firewalls", {"name": "fw", "rules": [rule], "apply_to": [selector]}, expect=201)
    path = f"/firewalls/{made['firewall']['id']}"
    settle(client, *made["actions"])
    settle(client, *client.ask("POST", f"{path}/actions/set_rules", {"rules": []}, expect=201)["actions"])
    again = client.ask("POST", f"{path}/actions/apply_to_resources", {"apply_to": [selector]}, expect=422)
    assert again["error"]["code"] == "firewall_already_applied"
    client.ask("POST", f"{path}/actions/remove_from_resources", {"remove_from": [selector]}, expect=201)
    assert client.ask("GET", path)["firewall"]["applied_to"] == []
    client.ask("PUT", path, {"name": "fw2"}, expect=200)
    assert [one["name"] for one in client.ask("GET", "/firewalls", expect=200)["firewalls"]] == ["fw2"]
    bad = client.ask("POST", "/firewalls", {"name": "x", "rules": [{**rule, "source_ips": ["10.0.0.1/8"]}]}, expect=422)
    assert bad["error"]["code"] == "invalid_input"
    client.ask("DELETE", path, expect=204)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "not a host"}, "name"),
        ({"name": ""}, "name"),
        ({"server_type": "cx99"}, "server_type"),
        ({"image": "debian-7"}, "image"),
        ({"location": "moon1"}, "location"),
        ({"ssh_keys": ["unknown"]}, "ssh_keys"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"user_data": "x" * 32769}, "user_data"),
        ({"networks": [1]}, "networks"),
        ({"server_type": "cx23", "location": "ash"}, "server_type"),
    ],
)
def test_a_bad_order_names_its_field_and_creates_nothing(client: Any, changes: dict[str, Any], field: str) -> None:
    body = {"name": "bad-order", "server_type": "cx23", "image": "debian-12", "location": "fsn1", **changes}
    error = client.ask("POST", "/servers", body, expect=422)["error"]
    assert error["code"] == "invalid_input"
    assert [one["name"] for one in error["details"]["fields"]] == [field]
    assert not client.ask("GET", "/servers", name="bad-order")["servers"]


def test_pages_of_a_listing_are_as_described(client: Any) -> None:
    first = client.ask("GET", "/server_types", per_page=5, expect=200)
    assert first["meta"]["pagination"]["next_page"] == 2
    second = client.ask("GET", "/server_types", per_page=5, page=2)
    assert not {one["id"] for one in first["server_types"]} & {one["id"] for one in second["server_types"]}
    assert client.ask("GET", "/servers", per_page=51, expect=422)["error"]["code"] == "invalid_input"
    assert client.ask("GET", "/servers", label_selector="a=b=c", expect=422)["error"]["code"] == "invalid_input"


def test_a_wrong_and_a_read_only_token_are_refused(contract_client: Any) -> None:
    stranger = contract_client(token="short")
    assert stranger.ask("GET", "/servers", expect=401)["error"]["code"] == "unauthorized"
    reader = contract_client(token="readonly" + "x" * 56)
    reader.ask("GET", "/servers", expect=200)
    assert reader.ask("POST", "/ssh_keys", {}, expect=403)["error"]["code"] == "token_readonly"


def test_malformed_json_is_refused(lab_session: Any) -> None:
    headers = {"Authorization": f"Bearer {lab_session.token}"}
    answer = requests.post(f"{lab_session.endpoint}/servers", data="{", headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "json_error")
    answer = requests.post(f"{lab_session.endpoint}/servers", data="[1]", headers=headers, timeout=10)
    assert answer.json()["error"]["code"] == "json_error"
    answer = requests.get(f"{lab_session.endpoint}/moons", headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
