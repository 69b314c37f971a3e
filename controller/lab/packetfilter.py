"""Firewall rules as nftables on the machine, outside the hosts: nothing on a host can lift them, as in the real cloud.

One table a lab. Traffic to a guarded server passes only by its rules; what belongs to a known connection passes.
Between two hosts the rules hold where the machine filters bridged traffic (br_netfilter), and always from the machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from controller.lab.commands import CommandFailed, run

Rule = dict[str, Any]


def table_name(lab: str) -> str:
    return f"ratchet_{lab.replace('-', '_')}"


def ruleset(lab: str, guarded: dict[str, list[Rule]]) -> str:
    """nft commands that replace the lab's table. `guarded` maps the address of each guarded server to its rules."""
    table = table_name(lab)
    lines = [f"table inet {table} {{}}", f"delete table inet {table}"]
    if not guarded:
        return "\n".join(lines) + "\n"
    lines.append(f"table inet {table} {{")
    to_hosts, from_hosts = [], []
    for number, (address, rules) in enumerate(sorted(guarded.items())):
        incoming = [rule for rule in rules if rule["direction"] == "in"]
        outgoing = [rule for rule in rules if rule["direction"] == "out"]
        lines += _chain(f"in_{number}", _matches(incoming, "saddr", "source_ips"))
        to_hosts.append(f"ip daddr {address} jump in_{number}")
        if outgoing:
            lines += _chain(f"out_{number}", _matches(outgoing, "daddr", "destination_ips"))
            from_hosts.append(f"ip saddr {address} jump out_{number}")
    for hook, jumps in {"input": from_hosts, "output": to_hosts, "forward": from_hosts + to_hosts}.items():
        lines += [f"  chain {hook} {{", f"    type filter hook {hook} priority -5; policy accept;"]
        lines += [f"    {jump}" for jump in jumps] + ["  }"]
    return "\n".join([*lines, "}"]) + "\n"


def _chain(name: str, matches: Iterable[str]) -> list[str]:
    return [
        f"  chain {name} {{",
        "    ct state established,related return",
        *(f"    {match} return" for match in matches),
        "    drop",
        "  }",
    ]


def _matches(rules: list[Rule], side: str, field: str) -> Iterable[str]:
    for rule in rules:
        # The lab's network is IPv4.
        networks = [one for one in rule[field] if ipaddress.ip_network(one).version == 4]
        if not networks:
            continue
        # A prefix of length 0 is no valid member of a set.
        where = "" if "0.0.0.0/0" in networks else f"ip {side} {{ {', '.join(networks)} }} "
        if rule["protocol"] in {"tcp", "udp"}:
            ports = "1-65535" if rule["port"] == "any" else rule["port"]
            yield f"{where}{rule['protocol']} dport {ports}"
        else:
            yield f"{where}meta l4proto {rule['protocol']}"


def load(lab: str, guarded: dict[str, list[Rule]]) -> None:
    """Put exactly these rules in force. Raises CommandFailed."""
    run(["nft", "-f", "-"], stdin=ruleset(lab, guarded))


def unload(lab: str) -> None:
    try:
        load(lab, {})
    except CommandFailed as error:
        if "no such file" not in error.output.lower():
            raise
