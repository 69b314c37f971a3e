"""What two independent auditors say of a host that Ratchet has set up: lynis of the host, ssh-audit of its SSH server.

usage: python -m benchmarks.host_security [--quick] [--output json]      (needs podman and root; findings go to stderr)
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from benchmarks.figures import Figure, emit, parse_arguments
from benchmarks.lab_fleet import FLEET, lab_fleet
from controller.adapters.inventory import load_fleet
from controller.adapters.ssh import Connection, connect
from controller.model.project import Project

# In the lab, whose containers may not set the kernel's parameters.
LYNIS_INDEX = 66
INSTALL = "sudo apt-get update -q && sudo DEBIAN_FRONTEND=noninteractive apt-get install -q --yes lynis ssh-audit"
REPORT = "/var/log/lynis-report.dat"
# What ssh-audit warns of and we keep, each with its reason.
KEPT = {
    "sntrup761x25519-sha512@openssh.com": "a hybrid: as strong as X25519 alone, should the new half fall",
    "sntrup761x25519-sha512": "the same by its final name, which is newer than Debian's ssh-audit",
    "kex-strict-s-v00@openssh.com": "no algorithm: the mark of a server that is safe from Terrapin",
}


@dataclass(frozen=True)
class Findings:
    """What the auditors found; each finding is one line."""

    index: int
    warnings: list[str]
    suggestions: list[str]
    ssh_failures: list[str]
    ssh_warnings: list[str]


def run(connection: Connection, command: str, timeout: float = 300) -> str:
    """Standard output. Raises SystemExit with what the command said when it fails."""
    code, out, err = connection.run(command, timeout)
    if code:
        raise SystemExit(f"{command} ended with {code}:\n{(out + err)[-2000:]}")
    return out


def audit(connection: Connection) -> Findings:
    """Install both auditors from Debian on the host, and ask them."""
    run(connection, INSTALL)
    run(connection, "sudo lynis audit system --quick --quiet --no-colors >/dev/null")
    report = run(connection, f"sudo cat {REPORT}")
    # It ends with 2 or 3 when it has found something.
    _, said, _ = connection.run("ssh-audit --no-colors --batch 127.0.0.1", 60)
    return parse(report, said)


def parse(report: str, said: str) -> Findings:
    """Read lynis' report file (`key=value`) and ssh-audit's lines (`(kex) name -- [warn] why`)."""
    found = re.search(r"^hardening_index=([0-9]+)$", report, re.MULTILINE)
    if found is None or "(gen) banner" not in said:
        raise SystemExit(f"an auditor did not finish:\n{report[-1000:]}\n{said[-1000:]}")
    lists = {kind: re.findall(rf"^{kind}\[\]=(.*)$", report, re.MULTILINE) for kind in ("warning", "suggestion")}
    blamed: dict[str, list[str]] = {"fail": [], "warn": []}
    subject = ""
    for line in said.splitlines():
        subject = line.split(" -- ")[0].strip() if line.startswith("(") else subject
        level = re.search(r"\[(fail|warn)\] (.*)", line)
        if level and subject.split(" ")[-1] not in KEPT:
            blamed[level[1]].append(f"{subject}: {level[2]}")
    return Findings(
        index=int(found[1]),
        warnings=[line.replace("|", " ") for line in lists["warning"]],
        suggestions=[line.replace("|", " ") for line in lists["suggestion"]],
        ssh_failures=blamed["fail"],
        ssh_warnings=blamed["warn"],
    )


def main() -> None:
    args = parse_arguments(__doc__ or "")
    with lab_fleet("bench-security", 1) as fleet:
        (host,) = load_fleet(Project(fleet.project), FLEET).hosts
        with connect(host, host.admin_user) as connection:
            findings = audit(connection)
    for kind in ("ssh_failures", "ssh_warnings", "warnings", "suggestions"):
        for line in getattr(findings, kind):
            print(f"{kind}: {line}", file=sys.stderr)
    figures = [
        Figure(
            name="lynis' hardening index",
            unit="of 100",
            value=findings.index,
            target=f">= {LYNIS_INDEX}",
            reached=findings.index >= LYNIS_INDEX,
        ),
        *(
            Figure(name=name, unit="findings", value=len(lines), target="0", reached=not lines)
            for name, lines in {
                "lynis' warnings": findings.warnings,
                "ssh-audit's failures": findings.ssh_failures,
                "ssh-audit's warnings": findings.ssh_warnings,
            }.items()
        ),
        Figure(name="lynis' suggestions", unit="findings", value=len(findings.suggestions)),
    ]
    emit("host_security", args.quick, figures, args.output)


if __name__ == "__main__":
    main()
