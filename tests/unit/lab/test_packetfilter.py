from __future__ import annotations

from typing import Any

from controller.lab.packetfilter import ruleset


def rule(**fields: Any) -> dict[str, Any]:
    return {
        "direction": "in",
        "protocol": "tcp",
        "port": "22",
        "source_ips": ["0.0.0.0/0"],
        "destination_ips": [],
        **fields,
    }


def test_without_guarded_servers_the_table_only_goes_away() -> None:
    assert ruleset("my-lab", {}) == "table inet ratchet_my_lab {}\ndelete table inet ratchet_my_lab\n"


def test_what_no_rule_allows_is_dropped() -> None:
    text = ruleset("lab", {"10.0.0.2": [rule(), rule(port="80-90", source_ips=["192.0.2.0/24", "198.51.100.7/32"])]})
    assert "ip daddr 10.0.0.2 jump in_0" in text
    assert "    tcp dport 22 return\n" in text
    assert "    ip saddr { 192.0.2.0/24, 198.51.100.7/32 } tcp dport 80-90 return\n    drop" in text
    assert "out_0" not in text


def test_outgoing_traffic_is_free_until_a_rule_speaks_of_it() -> None:
    outgoing = rule(direction="out", protocol="udp", port="any", source_ips=[], destination_ips=["203.0.113.0/24"])
    text = ruleset("lab", {"10.0.0.2": [outgoing]})
    assert "ip saddr 10.0.0.2 jump out_0" in text
    assert "ip daddr { 203.0.113.0/24 } udp dport 1-65535 return" in text


def test_a_rule_for_ipv6_alone_opens_nothing() -> None:
    text = ruleset("lab", {"10.0.0.2": [rule(source_ips=["::/0"]), rule(protocol="icmp", port=None)]})
    assert "dport 22" not in text
    assert "meta l4proto icmp return" in text
