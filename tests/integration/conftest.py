"""The session's lab, with hosts on demand, and a fleet of two that the operators' command has provisioned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hcloud import Client
from hcloud.images.domain import Image
from hcloud.locations.domain import Location
from hcloud.server_types.domain import ServerType

from benchmarks.lab_fleet import CHECKOUT, write_project
from benchmarks.lab_session import LabSession
from controller.model.fleet import Host
from tests.integration.operators_fleet import FleetUnderTest

BOOT_SECONDS = 180
# A soak of as many seconds has six blocks.
SOAK_SECONDS = 3


def new_key(file: Path) -> str:
    """Make an SSH key pair, in place of an older one; returns the public half."""
    file.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", file.name, "-f", file], check=True)
    return file.with_suffix(".pub").read_text().strip()


class LabFleet:
    """A lab and its servers. Each host has the accounts `root` and `ratchet` (sudo), with one key, a known host key."""

    def __init__(self, session: LabSession, folder: Path) -> None:
        self.session = session
        self.client = Client(token=session.token, api_endpoint=session.endpoint, poll_interval=0.2, timeout=30)
        self.folder = folder
        self.key_file = folder / "key"
        self.known_hosts = folder / "known_hosts"
        self.public_key = new_key(self.key_file)
        self.known_hosts.touch()
        self._hosts: dict[str, Host] = {}

    @property
    def endpoint(self) -> str:
        return self.session.endpoint

    @property
    def token(self) -> str:
        return self.session.token

    def environment(self) -> dict[str, str]:
        """HCLOUD_ENDPOINT and HCLOUD_TOKEN."""
        return self.session.environment()

    def hosts(self, count: int = 1, image: str = "debian-12", prefix: str = "shared") -> list[Host]:
        """`count` (1 to 3) running hosts with cloud-init done. All tests share the hosts of one image and prefix: leave
        them as you found them, or take a prefix of your own and `delete` them."""
        names = [f"{prefix}-{image.removeprefix('debian-')}-{number}" for number in range(1, count + 1)]
        fresh = [name for name in names if name not in self._hosts]
        for name, host in zip(fresh, [self._create(name, image) for name in fresh], strict=True):
            self._hosts[name] = host
        for name in fresh:
            self._wait(self._hosts[name])
        return [self._hosts[name] for name in names]

    def delete(self, *hosts: Host) -> None:
        for host in hosts:
            server = self.client.servers.get_by_name(host.name)
            if server is not None:
                self.client.servers.delete(server).wait_until_finished()
            self._hosts.pop(host.name, None)

    def ssh(self, host: Host, command: str, *, user: str = "root", check: bool = True) -> str:
        """Standard output of a command on a host."""
        options = [
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "BatchMode=yes",
        ]
        done = subprocess.run(
            ["ssh", "-i", self.key_file, *options, "-o", "ConnectTimeout=5", f"{user}@{host.address}", command],
            capture_output=True,
            text=True,
            timeout=BOOT_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"`{command}` on {host.name} exited {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def user_data(self, host_key: Path) -> str:
        """What gives a host its accounts and its host key."""
        account = {
            "name": "ratchet",
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "ssh_authorized_keys": [self.public_key],
        }
        return "#cloud-config\n" + json.dumps(
            {
                "ssh_deletekeys": True,
                "ssh_keys": {
                    "ed25519_private": host_key.read_text(),
                    "ed25519_public": host_key.with_suffix(".pub").read_text(),
                },
                "users": ["default", account],
            }
        )

    def new_public_key(self, name: str) -> str:
        """The public half of a key pair that nothing else uses."""
        return new_key(self.folder / name)

    def _create(self, name: str, image: str) -> Host:
        host_key = self.folder / f"{name}-host-key"
        public = new_key(host_key)
        keys = [key for key in self.client.ssh_keys.get_all() if key.public_key == self.public_key]
        key = keys[0] if keys else self.client.ssh_keys.create("tests", self.public_key)
        server = self.client.servers.create(
            name=name,
            server_type=ServerType(name="cx23"),
            image=Image(name=image),
            location=Location(name="fsn1"),
            ssh_keys=[key],
            user_data=self.user_data(host_key),
        ).server
        assert server.public_net is not None and server.public_net.ipv4 is not None
        address = server.public_net.ipv4.ip
        with self.known_hosts.open("a") as file:
            file.write(f"{address} {' '.join(public.split()[:2])}\n")
        return Host(name=name, address=address, key_file=self.key_file, known_hosts=self.known_hosts)

    def _wait(self, host: Host) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while "done" not in (said := self.ssh(host, "cloud-init status --wait", check=False)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{host.name} is not up after {BOOT_SECONDS} s: {said}")
            time.sleep(0.3)


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
