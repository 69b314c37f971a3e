"""An operator's project with a fleet of lab hosts, experiments made for the tests, and what to wait for in a run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hcloud import Client

CONTROLLER = [sys.executable, "-m", "controller"]

WORKLOAD: dict[str, Any] = {
    "rate": 15,
    "requests": [{"path": "/data/catalogue.json", "headers": {"Accept-Encoding": "gzip"}}],
}


def experiment_document(name: str, variants: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A small experiment on the demo site's compressible document."""
    return {
        "name": name,
        "question": "Does this variant answer faster?",
        "why": "To see the main job work from end to end.",
        "risk": {"level": "low", "note": "None on a lab host."},
        "sources": ["the test suite"],
        "variants": [{"name": key, "parameters": parameters} for key, parameters in variants.items()],
        "workload": WORKLOAD,
        # Fixed, so that no trial begins with a calibration that its test is not about.
        "timing": {"block_seconds": 1.0},
    } | changes


@dataclass
class FleetUnderTest:
    """One operator's project with a provisioned fleet."""

    project: Path
    environment: dict[str, str]
    name: str = "lab"

    def controller(self, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CONTROLLER, *arguments],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*CONTROLLER, *arguments],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def runs(self) -> set[str]:
        return {folder.name for folder in (self.project / "runs").glob("*")}

    def write_experiment(self, name: str, variants: dict[str, dict[str, Any]], **changes: Any) -> None:
        folder = self.project / "experiments" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "meta.json").write_text(json.dumps(experiment_document(name, variants, **changes), indent=1))

    def optimize(self, *experiments: str, expect: int = 0) -> dict[str, Any]:
        arguments = [word for name in experiments for word in ("--experiment", name)]
        done = self.controller("optimize", "--fleet", self.name, *arguments, "--output", "json")
        assert done.returncode == expect, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def plan(self, run_id: str, trial: int = 1) -> dict[str, Any]:
        """A trial's plan.json."""
        path = self.project / "runs" / run_id / "trials" / str(trial) / "plan.json"
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def status(self) -> dict[str, dict[str, Any]]:
        """Host -> its row of `controller status`."""
        done = self.controller("status", "--fleet", self.name, "--output", "json")
        return {row["host"]: row for row in json.loads(done.stdout)["hosts"]}

    def live(self) -> dict[str, str]:
        return {host: row["live"] for host, row in self.status().items()}

    def address(self, host: str) -> str:
        document = yaml.safe_load((self.project / "inventory" / self.name / "hosts.yml").read_text())
        return str(document["all"]["hosts"][host]["ansible_host"])

    def ssh(self, host: str, command: str, *, user: str = "ratchet") -> subprocess.CompletedProcess[str]:
        """Over OpenSSH, an implementation of its own."""
        return subprocess.run(
            [
                "ssh",
                "-i",
                str(self.project / ".ratchet/keys" / self.name),
                "-o",
                f"UserKnownHostsFile={self.project / 'inventory' / self.name / 'known_hosts'}",
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "BatchMode=yes",
                f"{user}@{self.address(host)}",
                command,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


# Long enough to be caught in the middle, on the live instance, so that there is something to restore; and nothing but
# the test ends it, whatever the fleet has kept meanwhile: the variant is far faster, so that no rule gives it up, and
# may not be kept before 150 pairs.
LONG_VARIANT = {"plain": {"nginx_gzip": False}}
LONG = {
    "design": "switchback",
    "allow_service_reduction": True,
    "timing": {"block_seconds": 1.0, "maximum_pairs": 200, "minimum_pairs": 150},
}


def wait_until(true: Callable[[], bool], *, seconds: float, what: str) -> float:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, f"after {seconds} s still not {what}"
        time.sleep(0.3)
    return time.monotonic() - started


def newest_log(fleet: FleetUnderTest) -> list[dict[str, Any]]:
    logs = sorted((fleet.project / "runs").glob("*/log.jsonl"))
    return [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []


def pairs_judged(fleet: FleetUnderTest, known: set[str]) -> Callable[[], bool]:
    def judged() -> bool:
        runs = fleet.runs() - known
        return bool(runs) and any(event.get("event") == "pair" for event in newest_log(fleet))

    return judged


def stint_begun(fleet: FleetUnderTest, known: set[str], number: int) -> Callable[[], bool]:
    def begun() -> bool:
        return bool(fleet.runs() - known) and any(
            event.get("text", "").startswith(f"stint {number}:") for event in newest_log(fleet)
        )

    return begun


def restart_ssh(fleet: FleetUnderTest, host: str) -> None:
    """By the cloud's own means: a reset of the server."""
    client = Client(token=fleet.environment["HCLOUD_TOKEN"], api_endpoint=fleet.environment["HCLOUD_ENDPOINT"])
    server = client.servers.get_by_name(host)
    assert server is not None
    client.servers.reset(server).wait_until_finished()
    wait_until(lambda: fleet.ssh(host, "true").returncode == 0, seconds=60, what="back")
    wait_until(lambda: fleet.status()[host]["healthy"], seconds=30, what="healthy")
