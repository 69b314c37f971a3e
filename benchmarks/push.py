"""How long a push to many hosts takes, beside `ansible -m ping` on the same hosts with the same forks: the floor.

usage: python -m benchmarks.push [--quick] [--output json]      (needs podman and root; --quick: 4 hosts instead of 20)
"""

from __future__ import annotations

import json
import statistics
import time

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.lab_fleet import FLEET, LabFleet, lab_fleet

TARGET = 1.3


def seconds(fleet: LabFleet, *command: str) -> float:
    started = time.perf_counter()
    fleet.run(*command)
    return time.perf_counter() - started


def measure(fleet: LabFleet, *, hosts: int, rounds: int) -> list[Figure]:
    """All figures; the first round warms up and does not count."""
    pushes, pings = [], []
    inventory = ["-i", f"inventory/{FLEET}"]
    for number in range(rounds + 1):
        # Another level each time, so that every push renders, stages and tests something new.
        arms = [
            {
                "name": "variant",
                "parameters": {"nginx_gzip_comp_level": 1 + number % 8, "nginx_gzip_min_length": number},
            }
        ]
        arguments = ["-e", json.dumps({"variant_arms": arms})]
        pings.append(seconds(fleet, "ansible", *inventory, "all", "-m", "ansible.builtin.ping"))
        pushes.append(seconds(fleet, "ansible-playbook", *inventory, "playbooks/push.yml", *arguments))
    ratios = sorted(push / ping for push, ping in zip(pushes[1:], pings[1:], strict=True))
    value = statistics.median(ratios)
    return [
        Figure(
            name=f"push to {hosts} hosts over ping",
            unit="ratio",
            value=value,
            low=ratios[0],
            high=ratios[-1],
            target=f"<= {TARGET}",
            reached=value <= TARGET,
        ),
        Figure(
            name=f"push to {hosts} hosts",
            unit="s",
            value=statistics.median(pushes[1:]),
            low=min(pushes[1:]),
            high=max(pushes[1:]),
            peers={"ansible -m ping": statistics.median(pings[1:])},
        ),
    ]


def main() -> None:
    args = parse_arguments(__doc__ or "")
    hosts, rounds = (4, 3) if args.quick else (20, 7)
    with lab_fleet("bench-push", hosts) as fleet:
        figures = measure(fleet, hosts=hosts, rounds=rounds)
    emit("push", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
