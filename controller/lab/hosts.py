"""Servers as podman containers. Each call does its work however often it is repeated."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.lab.commands import CommandFailed, exists, podman, podman_json, run
from controller.lab.machine import Limits, global_options, run_options
from controller.lab.state import LABEL, object_name

ID_LABEL = "ratchet.lab.server"
STOP_SECONDS = 10
FIRST_HOST = 10

# With the kernel's own 100 ms a host that used up its share would stand still for tens of milliseconds, as no VM does.
CPU_PERIOD_US = 5000


@dataclass(frozen=True)
class Container:
    """What podman says of one server."""

    server_id: int
    state: str
    started: datetime | None
    exit_code: int


@dataclass(frozen=True)
class Seed:
    """What cloud-init is given on first boot."""

    instance: str
    hostname: str
    user_data: str
    public_keys: list[str]
    root_password: str | None


class Hosts:
    """The containers of one lab, on a network of their own."""

    def __init__(self, lab: str, folder: Path) -> None:
        self.lab = lab
        self.network = object_name(lab)
        self._seeds = folder / "seed"

    def name(self, server_id: int) -> str:
        return f"{object_name(self.lab)}-{server_id}"

    def ensure_network(self) -> ipaddress.IPv4Network:
        """The lab's network; podman picks a free range when it is new.

        Its bridge lives only while a server does. Without one, requests for a server that is off would take the default
        route out of this machine; a route of last resort keeps them here.
        """
        if not exists("network", self.network):
            podman("network", "create", "--disable-dns", "--label", f"{LABEL}={self.lab}", self.network)
        range_ = self._range()
        run(["ip", "route", "replace", *_last_resort(range_)])
        return range_

    def remove_network(self) -> None:
        """The network, if there is one."""
        try:
            range_ = self._range()
        except CommandFailed:
            return
        with contextlib.suppress(CommandFailed):
            run(["ip", "route", "delete", *_last_resort(range_)])
        podman("network", "rm", "--force", self.network)

    def _range(self) -> ipaddress.IPv4Network:
        facts = json.loads(podman("network", "inspect", self.network))[0]
        return ipaddress.IPv4Network(facts["subnets"][0]["subnet"])

    def all(self) -> dict[int, Container]:
        """Every container of the lab by server id."""
        rows = podman_json("ps", "--all", "--filter", f"label={LABEL}={self.lab}")
        return {container.server_id: container for container in map(_container, rows)}

    def create(
        self, server_id: int, *, image: str, hostname: str, address: str, limits: Limits, labels: dict[str, str]
    ) -> None:
        """Make the container without starting it, unless it exists."""
        if self._exists(server_id):
            return
        packed = ipaddress.IPv4Address(address).packed
        podman(
            *global_options(),
            "create",
            f"--name={self.name(server_id)}",
            f"--label={LABEL}={self.lab}",
            f"--label={ID_LABEL}={server_id}",
            *(f"--label=ratchet.lab.{key}={value}" for key, value in labels.items()),
            f"--hostname={hostname}",
            f"--network={self.network}",
            f"--ip={address}",
            # A stable hardware address keeps the machine's neighbour table right over restarts.
            f"--mac-address=02:00:{packed[0]:02x}:{packed[1]:02x}:{packed[2]:02x}:{packed[3]:02x}",
            "--no-hosts",
            "--systemd=always",
            "--cap-add=NET_ADMIN",
            # For units with mount namespaces, as on a real server.
            "--cap-add=SYS_ADMIN",
            # For `reboot` and `poweroff` on the host; they reach its own process tree only.
            "--cap-add=SYS_BOOT",
            # For sudo and PAM, which complain on stderr without it.
            "--cap-add=AUDIT_WRITE",
            "--sysctl=net.core.somaxconn=4096",
            f"--memory={limits.memory}",
            f"--cpu-period={CPU_PERIOD_US}",
            f"--cpu-quota={round(CPU_PERIOD_US * limits.cpus)}",
            *run_options(),
            f"--volume={self._seeds / str(server_id)}:/var/lib/cloud/seed/nocloud:ro",
            image,
            "/sbin/init",
        )

    def write_seed(self, server_id: int, seed: Seed) -> None:
        """The NoCloud seed that the container mounts; readable by root only, as it may hold keys."""
        folder = self._seeds / str(server_id)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        meta = {"instance-id": seed.instance, "local-hostname": seed.hostname, "public-keys": seed.public_keys}
        vendor: dict[str, Any] = {}
        if seed.root_password is not None:
            vendor = {
                "ssh_pwauth": True,
                "chpasswd": {
                    "expire": False,
                    "users": [{"name": "root", "password": seed.root_password, "type": "text"}],
                },
            }
        (folder / "meta-data").write_text(json.dumps(meta), encoding="utf-8")
        (folder / "user-data").write_text(seed.user_data, encoding="utf-8")
        (folder / "vendor-data").write_text(
            f"#cloud-config\n{json.dumps(vendor)}\n" if vendor else "", encoding="utf-8"
        )

    def start(self, server_id: int) -> None:
        podman(*global_options(), "start", self.name(server_id))

    def kill(self, server_id: int) -> None:
        """Cut the power."""
        try:
            podman("kill", "--signal=KILL", self.name(server_id))
        except CommandFailed as error:
            if "running" not in error.output and "state improper" not in error.output:
                raise

    def shut_down(self, server_id: int) -> None:
        """Ask systemd to stop, as a power button does; cut the power after ten seconds."""
        podman("stop", f"--time={STOP_SECONDS}", self.name(server_id))

    def remove(self, server_id: int) -> None:
        if self._exists(server_id):
            podman("rm", "--force", "--time=0", "--volumes", self.name(server_id))
        folder = self._seeds / str(server_id)
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()

    def remove_disk(self, server_id: int) -> None:
        """Remove the container and keep its seed, for a rebuild."""
        if self._exists(server_id):
            podman("rm", "--force", "--time=0", "--volumes", self.name(server_id))

    def _exists(self, server_id: int) -> bool:
        return exists("container", self.name(server_id))


def _last_resort(range_: ipaddress.IPv4Network) -> list[str]:
    return ["unreachable", str(range_), "metric", str(2**32 - 1)]


def _container(row: dict[str, Any]) -> Container:
    started = row.get("StartedAt")
    running = row["State"] == "running"
    return Container(
        server_id=int(row["Labels"][ID_LABEL]),
        state=row["State"],
        started=datetime.fromtimestamp(started, UTC) if running and started else None,
        exit_code=int(row.get("ExitCode") or 0),
    )


def next_address(network: ipaddress.IPv4Network, used: set[str], turn: int) -> str | None:
    """The `turn`-th free address, going round, so that a freed one is not reused at once. None when all are taken."""
    size = network.num_addresses - FIRST_HOST - 1
    for step in range(size):
        address = str(network.network_address + FIRST_HOST + (turn + step) % size)
        if address not in used:
            return address
    return None
