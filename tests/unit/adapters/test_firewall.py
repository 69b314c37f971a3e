"""What becomes of a firewall's rules: ours follow the settings, those of others stay, and nothing closes untold."""

from __future__ import annotations

import pytest
from hcloud.firewalls import FirewallRule

from controller.adapters.hetzner.firewall import ANYWHERE, firewall_rules, rule_change


def _rule(port: str | None, sources: list[str], text: str = "", protocol: str = "tcp") -> FirewallRule:
    return FirewallRule(direction="in", protocol=protocol, port=port, source_ips=sources, description=text or None)


def _rules(change_of: list[FirewallRule]) -> set[tuple[str, str]]:
    return {(str(rule.port), ",".join(rule.source_ips)) for rule in change_of}


def test_the_same_settings_change_nothing() -> None:
    change = rule_change(firewall_rules(["192.0.2.0/24"]), ["192.0.2.0/24"])
    assert (change.changed, change.opens, change.closes, change.kept) == (False, [], [], [])


@pytest.mark.parametrize(
    ("written", "answered"),
    [("192.0.2.7", "192.0.2.7/32"), ("2001:DB8::/32", "2001:db8::/32"), ("192.0.2.0/255.255.255.0", "192.0.2.0/24")],
)
def test_a_network_is_the_same_however_it_is_written(written: str, answered: str) -> None:
    change = rule_change(firewall_rules([answered]), [written])
    assert (change.changed, change.opens, change.closes) == (False, [], [])
    assert firewall_rules([written])[0].source_ips == [answered]


def test_rules_that_others_have_made_stay() -> None:
    made = [
        _rule("9100", ["198.51.100.7/32"], "metrics"),
        _rule("22", ["203.0.113.5/32"]),
        FirewallRule(direction="out", protocol="tcp", port="25", source_ips=[], destination_ips=ANYWHERE),
    ]
    change = rule_change([*firewall_rules(ANYWHERE), *made], ANYWHERE)
    assert (change.changed, change.closes) == (False, [])
    assert change.rules[-3:] == made
    assert change.kept == ["tcp 9100 from 198.51.100.7/32", "tcp 22 from 203.0.113.5/32", "tcp 25 to anywhere"]


def test_what_closes_and_what_opens_is_named_by_port_and_network() -> None:
    before = [rule for rule in firewall_rules(ANYWHERE) if rule.port != "8088"]
    change = rule_change(before, ["192.0.2.0/24"])
    assert change.changed
    assert change.closes == ["tcp 22 from anywhere"]
    assert change.opens == ["tcp 8088 from anywhere"]
    assert ("22", "192.0.2.0/24") in _rules(change.rules)


def test_a_network_that_was_added_to_our_own_rule_would_close() -> None:
    before = firewall_rules(["192.0.2.0/24", "198.51.100.7"])
    assert rule_change(before, ["192.0.2.0/24"]).closes == ["tcp 22 from 198.51.100.7/32"]
    # Within another network, or in a rule of its own, it stays open.
    assert rule_change(before, ["192.0.2.0/24", "198.51.0.0/16"]).closes == []
    beside = _rule("22", ["198.51.100.0/24"], "home")
    assert rule_change([*before, beside], ["192.0.2.0/24"]).closes == []
