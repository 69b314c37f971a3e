"""The fleet's firewall: which rules are ours, and what a change of them opens and closes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hcloud.firewalls import FirewallRule

ANYWHERE = ["0.0.0.0/0", "::/0"]


@dataclass(frozen=True)
class RuleChange:
    """What becomes of the rules that are there; the lists are of words for people: `tcp 22 from 192.0.2.0/24`.

    `kept`: rules that somebody else has made, in the console for one. They stay.
    """

    rules: list[FirewallRule]
    opens: list[str]
    closes: list[str]
    kept: list[str]
    changed: bool


def firewall_rules(ssh_sources: list[str]) -> list[FirewallRule]:
    """SSH from the given networks; web, dashboard and ping from everywhere."""
    ports = [("22", "SSH", [str(network) for network in _networks(ssh_sources)]), ("80", "HTTP", ANYWHERE)]
    ports += [("443", "HTTPS", ANYWHERE), ("8088", "dashboard", ANYWHERE)]
    rules = [
        FirewallRule(direction="in", protocol="tcp", port=port, source_ips=sources, description=text)
        for port, text, sources in ports
    ]
    return [*rules, FirewallRule(direction="in", protocol="icmp", source_ips=ANYWHERE, description="ping")]


def rule_change(current: Sequence[FirewallRule], ssh_sources: list[str]) -> RuleChange:
    """Ours as the settings say, beside those of others."""
    wanted = firewall_rules(ssh_sources)
    names = {_name(rule) for rule in wanted}
    ours, others = [rule for rule in current if _name(rule) in names], [r for r in current if _name(r) not in names]
    rules = [*wanted, *others]
    return RuleChange(
        rules,
        opens=_reach(wanted, beyond=current),
        closes=_reach(ours, beyond=rules),
        kept=[_words(rule, (rule.source_ips or []) + (rule.destination_ips or [])) for rule in others],
        changed={_content(rule) for rule in ours} != {_content(rule) for rule in wanted},
    )


def _name(rule: FirewallRule) -> tuple[str, str, str, str]:
    """By this a rule of ours is known: another's of the same port has another description, or none."""
    return (*_service(rule), rule.description or "")


def _service(rule: FirewallRule) -> tuple[str, str, str]:
    return (rule.direction, rule.protocol, rule.port or "")


def _content(rule: FirewallRule) -> tuple[str, ...]:
    return (*_name(rule), *sorted(map(str, _networks(rule.source_ips or []))))


def _networks(sources: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """One form for each network, however it is written."""
    return [ipaddress.ip_network(source, strict=False) for source in sources]


def _reach(rules: Sequence[FirewallRule], *, beyond: Sequence[FirewallRule]) -> list[str]:
    """Who gets where by `rules`, and does not by `beyond`."""
    found = []
    for rule in rules:
        others = [net for other in beyond if _service(other) == _service(rule) for net in _networks(other.source_ips)]
        alone = [str(net) for net in _networks(rule.source_ips) if not any(_within(net, other) for other in others)]
        if alone:
            found.append(_words(rule, alone))
    return found


def _within(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network, other: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and one.subnet_of(other)


def _words(rule: FirewallRule, networks: list[str]) -> str:
    where = "anywhere" if sorted(networks) == sorted(ANYWHERE) else ", ".join(networks)
    direction = "from" if rule.direction == "in" else "to"
    return " ".join(word for word in (rule.protocol, rule.port or "", direction, where) if word)
