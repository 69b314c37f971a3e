"""A fleet of two lab hosts, provisioned by the command that operators use, and experiments made for the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.lab_fleet import CHECKOUT, write_project
from tests.postgres import Cluster

CONTROLLER = [sys.executable, "-m", "controller"]

# A soak of as many seconds has six blocks.
SOAK_SECONDS = 3

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


@pytest.fixture(scope="session")
def newer(lab_session: Any, postgresql: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetUnderTest]:
    """A fleet `d13` of one host with Debian 13, whose project keeps its runs in PostgreSQL."""
    folder = tmp_path_factory.mktemp("newer")
    write_project(folder, "d13", hosts=1, image="debian-13", trials={"lease_seconds": 20, "soak_seconds": 6})
    newer = FleetUnderTest(
        folder, os.environ | lab_session.environment() | {"RATCHET_DATABASE_URL": postgresql.url()}, "d13"
    )
    provisioned = newer.controller("provision", "--fleet", newer.name, timeout=600)
    assert provisioned.returncode == 0, provisioned.stdout + provisioned.stderr
    yield newer
    newer.controller("destroy", "--fleet", newer.name, "--yes")


@pytest.fixture(scope="session")
def fleet(lab_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetUnderTest]:
    folder = tmp_path_factory.mktemp("operator")
    write_project(folder, "lab", hosts=2, trials={"lease_seconds": 20, "soak_seconds": SOAK_SECONDS})
    under_test = FleetUnderTest(folder, os.environ | lab_session.environment())
    shutil.copytree(CHECKOUT / "experiments", folder / "experiments")
    provisioned = under_test.controller("provision", "--fleet", "lab", timeout=600)
    assert provisioned.returncode == 0, provisioned.stdout + provisioned.stderr
    yield under_test
    under_test.controller("destroy", "--fleet", "lab", "--yes")
