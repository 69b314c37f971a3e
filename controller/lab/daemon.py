"""Starting, stopping and describing labs: `controller lab up|down|status`."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.lab import catalog
from controller.lab.commands import CommandFailed, podman, podman_json
from controller.lab.hosts import Hosts
from controller.lab.images import ensure_image
from controller.lab.limits import TOKEN_LENGTH
from controller.lab.machine import require_parts
from controller.lab.packetfilter import unload
from controller.lab.state import LABEL, State, object_name, volume_folder
from controller.model.errors import HostFailed

ADDRESS = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Access:
    """How to reach a lab's API."""

    endpoint: str
    token: str

    def environment(self) -> dict[str, str]:
        return {"HCLOUD_ENDPOINT": self.endpoint, "HCLOUD_TOKEN": self.token}


class Lab:
    """One lab as seen from its project. `folder` holds the API's pid, port, token and log."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._record = folder / "lab.json"
        self.log = folder / "api.log"

    def up(self, *, port: int | None = None, images: list[str] | None = None, say: Say = lambda _: None) -> Access:
        """Make sure that the images are built and the API runs; repeatable. Raises HostFailed."""
        require_parts()
        for image in images if images is not None else [one["name"] for one in catalog.IMAGES]:
            ensure_image(image, say=say)
        record = self._read()
        if self._healthy(record):
            return self._access(record)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = {
            "port": port or self._free_port(record.get("port")),
            "token": record.get("token") or _new_token(),
        }
        record["pid"] = self._start(record["port"])
        self._write(record)
        self._wait_until_healthy(record)
        say(f"the lab `{self.name}` answers at {self._access(record).endpoint}")
        return self._access(record)

    def down(self, say: Say = lambda _: None) -> None:
        """Stop the API and delete the lab's containers, network and volume; repeatable."""
        self.stop_api()
        rows = podman_json("ps", "--all", "--filter", f"label={LABEL}={self.name}")
        for row in rows:
            podman("rm", "--force", "--time=0", "--volumes", row["Id"])
        if rows:
            say(f"deleted {len(rows)} servers")
        unload(self.name)
        Hosts(self.name, self.folder).remove_network()
        try:
            podman("volume", "rm", "--force", object_name(self.name))
        except CommandFailed as error:
            if "no such" not in error.output:
                raise
        self._record.unlink(missing_ok=True)

    def stop_api(self, *, kill: bool = False) -> None:
        """End the API's process; the servers go on."""
        pid = self._read().get("pid")
        if not pid or not self._is_ours(pid):
            return
        os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _is_alive(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def access(self) -> Access | None:
        """None when the API does not answer."""
        record = self._read()
        return self._access(record) if self._healthy(record) else None

    def servers(self) -> list[dict[str, Any]]:
        """Name, type, image, address, state and uptime (seconds, null when off), also while the API is down."""
        folder = volume_folder(self.name, create=False)
        if folder is None or not (folder / "state.db").exists():
            return []
        state = State(folder)
        containers = Hosts(self.name, folder).all()
        rows = []
        for server in state.all("server"):
            container = containers.get(server["id"])
            started = container.started if container else None
            kind = next(one for one in catalog.SERVER_TYPES if one["id"] == server["server_type"])
            rows.append(
                {
                    "name": server["name"],
                    "type": kind["name"],
                    "image": server["image"],
                    "address": server["address"],
                    "state": container.state if container else "missing",
                    "uptime": int((datetime.now(UTC) - started).total_seconds()) if started else None,
                }
            )
        state.close()
        return rows

    def _read(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record

    def _write(self, record: dict[str, Any]) -> None:
        temporary = self._record.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(self._record)

    def _access(self, record: dict[str, Any]) -> Access:
        return Access(endpoint=f"http://{ADDRESS}:{record['port']}/v1", token=record["token"])

    def _free_port(self, preferred: int | None) -> int:
        for port in (preferred, 0):
            if port is not None:
                try:
                    with socket.create_server((ADDRESS, port)) as probe:
                        return int(probe.getsockname()[1])
                except OSError:
                    continue
        raise HostFailed("no free port", where="lab", next_step="name one: controller lab up --port PORT")

    def _start(self, port: int) -> int:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "controller.lab", self.name, str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        return process.pid

    def _healthy(self, record: dict[str, Any]) -> bool:
        if not {"port", "token", "pid"} <= record.keys():
            return False
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}:{record['port']}/_lab/health", timeout=5) as answer:
                return bool(json.load(answer).get("lab") == self.name)
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def _wait_until_healthy(self, record: dict[str, Any]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy(record):
            if time.monotonic() > deadline or not _is_alive(record["pid"]):
                last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
                raise HostFailed(
                    f"the lab's API did not start: {' / '.join(last) or 'it said nothing'}",
                    where="lab",
                    next_step=f"read {self.log}",
                )
            time.sleep(0.1)

    def _is_ours(self, pid: int) -> bool:
        """A recorded number may meanwhile belong to somebody else's process."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"controller.lab" in words and self.name.encode() in words


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _new_token() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(TOKEN_LENGTH))


def describe(lab: Lab) -> dict[str, Any]:
    """The document of `controller lab status --output json`."""
    access = lab.access()
    return {
        "name": lab.name,
        "api": asdict(access) if access else None,
        "log": str(lab.log),
        "servers": lab.servers(),
    }
