"""A provisioned fleet in a lab of its own, used through the same command as an operator's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.lab_session import LabSession

CHECKOUT = Path(__file__).resolve().parent.parent
FLEET = "bench"


@dataclass(frozen=True)
class LabFleet:
    """A project folder with the fleet `bench`."""

    project: Path
    environment: dict[str, str]

    def run(self, *command: str, timeout: float = 900) -> str:
        """Standard output of a command in the project. Raises SystemExit with its messages when it fails."""
        done = subprocess.run(
            command,
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,  # Ansible refuses one that does not block
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise SystemExit(
                f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout

    def controller(self, *arguments: str, timeout: float = 900) -> str:
        return self.run(sys.executable, "-m", "controller", *arguments, timeout=timeout)

    def optimize(self, experiment: str, *, seed: int, timeout: float = 900) -> dict[str, Any]:
        """Run one shipped experiment; returns the JSON result."""
        arguments = ["--experiment", experiment, "--seed", str(seed), "--output", "json"]
        document: dict[str, Any] = json.loads(
            self.controller("optimize", "--fleet", FLEET, *arguments, timeout=timeout)
        )
        return document

    def sidecars(self, run_id: str) -> list[dict[str, Any]]:
        """Of the first trial of a run, one a host: each stands beside the host's CSV."""
        rows = sorted((self.project / "runs" / run_id / "trials/1").glob("*.csv.gz"))
        return [json.loads((path.parent / path.name.replace(".csv.gz", ".json")).read_text()) for path in rows]

    def own_experiments(self) -> Path:
        """The fleet's folder of experiments, from now on without the shipped ones."""
        folder = self.project / "experiments"
        if folder.is_symlink():
            folder.unlink()
        folder.mkdir(exist_ok=True)
        return folder

    def reset(self) -> None:
        """Give the fleet its own settings again, as if nothing had been kept."""
        settings = self.project / "inventory" / FLEET / "group_vars/all"
        (settings / "zz-kept.yml").unlink(missing_ok=True)
        self.run("ansible-playbook", "-i", f"inventory/{FLEET}", "playbooks/commit.yml")


def write_project(
    folder: Path, fleet: str, *, hosts: int, image: str = "debian-12", trials: Mapping[str, float] | None = None
) -> None:
    """An operator's folder without experiments, whose fleet has the lab fleet's nginx parameters, not provisioned."""
    settings = folder / "inventory" / fleet / "group_vars/all"
    settings.mkdir(parents=True)
    shutil.copy(CHECKOUT / "ansible.cfg", folder)
    for shipped in ("playbooks", "roles"):
        (folder / shipped).symlink_to(CHECKOUT / shipped)
    shutil.copy(CHECKOUT / "inventory/lab/group_vars/all/nginx.yml", settings)
    servers = {"count": hosts, "image": image, "prefer": [{"type": "cx23", "location": "fsn1"}]}
    document = {"ratchet": {"servers": servers, "trials": dict(trials or {})}}
    (settings / "ratchet.yml").write_text(yaml.safe_dump(document))


@contextmanager
def lab_fleet(name: str, hosts: int, *, trials: Mapping[str, float] | None = None) -> Iterator[LabFleet]:
    """Boot and provision `hosts` lab servers with the lab fleet's settings; everything is removed at the end."""
    with LabSession(name, images=["debian-12"]) as lab, tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        project = Path(folder)
        write_project(project, FLEET, hosts=hosts, trials=trials)
        (project / "experiments").symlink_to(CHECKOUT / "experiments")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        fleet = LabFleet(
            project,
            os.environ | {"HCLOUD_ENDPOINT": lab.endpoint, "HCLOUD_TOKEN": lab.token, "PATH": path},
        )
        fleet.controller("provision", "--fleet", FLEET)
        yield fleet
