from __future__ import annotations

from ipaddress import IPv4Network

from controller.lab.hosts import next_address


def test_a_freed_address_is_not_given_out_again_at_once() -> None:
    network = IPv4Network("192.0.2.0/24")
    assert next_address(network, set(), 0) == "192.0.2.10"
    assert next_address(network, set(), 1) == "192.0.2.11"
    assert next_address(network, {"192.0.2.12"}, 2) == "192.0.2.13"


def test_addresses_go_round_and_end() -> None:
    network = IPv4Network("192.0.2.0/28")
    assert next_address(network, set(), 5) == "192.0.2.10"
    assert next_address(network, {f"192.0.2.{number}" for number in range(10, 15)}, 0) is None
