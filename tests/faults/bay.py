"""A lab of its own with an operator's project and a provisioned fleet, whose hosts can be broken from below."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hcloud import Client

from benchmarks.lab_fleet import CHECKOUT, write_project
from controller.lab.machine import global_options
from tests.faults.experiments import EXPERIMENTS, QUIET
from tests.faults.host_state import ASKED, KEEPER, MARKS, STATE_SCRIPT, Baseline, HostState, parse_state
from tests.faults.live_run import LiveRun
from tests.integration.optimize.conftest import FleetUnderTest

BOOT_SECONDS = 120.0
_SWITCHED = "test $(readlink live) != $(readlink confirmed)"


def _wait_until(condition: str) -> str:
    """Shell that goes on within 10 ms of it."""
    loop = "i=0; until { %s; } 2>/dev/null; do i=$((i + 1)); [ $i -lt 5000 ] || exit 9; sleep 0.01; done; "
    return "cd /etc/nginx/ratchet; " + loop % condition


class BrokenHost:
    """A host of the fleet as its hypervisor sees it: processes and files from inside, and the power."""

    def __init__(self, name: str, container: str, client: Client) -> None:
        self.name = name
        self.container = container
        self._client = client

    def run(self, script: str, *, stdin: str = "", check: bool = True, timeout: float = 90) -> str:
        """Standard output of a script as root, whatever the host's network and sshd do."""
        done = subprocess.run(
            ["podman", *global_options(), "exec", "-i", self.container, "bash", "-c", script],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.name}: {script[:80]}: {done.returncode} {done.stderr[-300:]}")
        return done.stdout

    def at_a_switch(self, script: str) -> None:
        """Run a script within milliseconds of the renaming of `live` to the variant: the reload is under way."""
        self.run(_wait_until(_SWITCHED) + script)

    def when_on_variant(self, script: str) -> None:
        """Run a script when nginx is known to run the variant. Raises RuntimeError when that takes a minute."""
        carried = f'{_SWITCHED} && m=$(mark live/nginx.conf) && test -n "$m" && test "$m" = "$(carried)"'
        self.run(MARKS + _wait_until(carried) + script)

    def put(self, source: Path, target: str) -> None:
        self.put_bytes(source.read_bytes(), target)

    def put_bytes(self, content: bytes, target: str) -> None:
        """Write a file in place: whoever has it open or mapped sees the new content."""
        script = f"base64 -d | dd of={target} conv=notrunc 2>/dev/null"
        self.run(script, stdin=base64.b64encode(content).decode())

    def state(self) -> HostState:
        # All the rest takes seconds of a host that boots, which are then missing in its boot.
        return parse_state(
            self.run("pgrep -x nginx >/dev/null || { echo no nginx; exit; }" + STATE_SCRIPT, check=False)
        )

    def heal(self) -> None:
        """Undo what an injection that was broken off has left."""
        self.run(
            "pkill -CONT sshd; pkill -CONT nginx; nft delete table inet cut; rm -f /etc/ld.so.preload", check=False
        )
        self.run(
            "umount -l /etc/nginx /var/lib/ratchet; systemctl stop 'ratchet-faults-*'; rm -f /run/filler", check=False
        )
        self.run("mv /run/hidden/* /etc/systemd/system/ && systemctl daemon-reload", check=False)
        self.run(f"systemctl reset-failed {KEEPER}; systemctl start {KEEPER} nginx", check=False)

    def booted(self, after: float) -> float:
        """When its services could start, in seconds of this machine's monotonic clock, which is the host's as well.

        Of a boot after that moment. Raises RuntimeError when there is none in two minutes.
        """
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            told = self.run("systemctl show --property=ActiveEnterTimestampMonotonic --value basic.target", check=False)
            if told.strip().isdigit() and int(told) / 1e6 > after:
                return int(told) / 1e6
            time.sleep(0.2)
        raise RuntimeError(f"{self.name} has not booted in {BOOT_SECONDS:.0f} s")

    def power_off(self) -> None:
        self._client.servers.power_off(self._server()).wait_until_finished()

    def power_on(self) -> None:
        self._client.servers.power_on(self._server()).wait_until_finished()

    def _server(self) -> Any:
        return self._client.servers.get_by_name(self.name)


class Bay:
    """One fleet to break again and again. `folder` holds the operator's project and what the runs said."""

    def __init__(
        self, folder: Path, *, name: str, lab: str, endpoint: str, token: str, hosts: int, trials: Mapping[str, float]
    ) -> None:
        self.folder = folder
        self.name = name
        self.project = folder / "operator"
        self._lab = lab
        self._count = itertools.count(1)
        self._client = Client(token=token, api_endpoint=endpoint, poll_interval=0.1, timeout=30)
        for part in ("output", "tmp"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        if not self.project.exists():
            write_project(self.project, name, hosts=hosts, trials=trials)
            # What one variant adds, and somebody else holds by then.
            with (self.project / "inventory" / name / "group_vars/all/nginx.yml").open("a") as parameters:
                parameters.write("nginx_ipv6: false\n")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {
            "HCLOUD_ENDPOINT": endpoint,
            "HCLOUD_TOKEN": token,
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": str(CHECKOUT),
            "PATH": path,
        }
        # Host -> what it ran before any fault.
        self.baselines: dict[str, Baseline] = {}
        # Host -> what a run has kept since, where a fault is about its undoing.
        self.kept: dict[str, str] = {}
        self._fleet = FleetUnderTest(self.project, self.environment, name)
        for experiment, (variants, changes) in EXPERIMENTS.items():
            self._fleet.write_experiment(experiment, variants, **({"workload": QUIET} | changes))

    def make_ready(self) -> None:
        """Provision the fleet, and remember what it runs. Raises RuntimeError."""
        if (self.project / "inventory" / self.name / "hosts.yml").exists():
            for host in self.hosts:
                host.heal()
        done = self.controller("provision", "--fleet", self.name, timeout=600)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        self._commit()
        states = self.states()
        if any(state.problems() for state in states.values()):
            raise RuntimeError(f"the fleet is not healthy: {states}")
        self.baselines = {host: state.running for host, state in states.items()}

    @property
    def key_file(self) -> Path:
        return self.project / ".ratchet/keys" / self.name

    @cached_property
    def hosts(self) -> list[BrokenHost]:
        document = yaml.safe_load((self.project / "inventory" / self.name / "hosts.yml").read_text())
        found = []
        for name in sorted(document["all"]["hosts"]):
            server = self._client.servers.get_by_name(name)
            assert server is not None
            found.append(BrokenHost(name, f"ratchet-{self._lab}-{server.id}", self._client))
        return found

    def address(self, host: BrokenHost) -> str:
        return self._fleet.address(host.name)

    def controller(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return self._fleet.controller(*arguments, timeout=timeout)

    def start(self, *arguments: str, run_id: str | None = None) -> LiveRun:
        """A run that goes on in the background."""
        return LiveRun(
            [sys.executable, "-m", "controller", *arguments],
            project=self.project,
            environment=self.environment,
            output=self.folder / "output" / f"{next(self._count):03d}-{time.time_ns()}",
            run_id=run_id,
        )

    def unfinished(self) -> list[str]:
        """Ids of the runs that were broken off."""
        done = self.controller("runs", "--output", "json")
        return [row["run_id"] for row in json.loads(done.stdout)] if done.returncode == 0 else []

    def states(self) -> dict[str, HostState]:
        """Host -> its state, asked over OpenSSH: another implementation, another connection."""
        with ThreadPoolExecutor(max_workers=len(self.hosts)) as pool:
            return dict(zip((h.name for h in self.hosts), pool.map(self._state_over_ssh, self.hosts), strict=True))

    def _state_over_ssh(self, host: BrokenHost) -> HostState:
        try:
            state = parse_state(self._fleet.ssh(host.name, STATE_SCRIPT).stdout)
            connection = http.client.HTTPConnection(self._fleet.address(host.name), timeout=5)
            connection.request("GET", ASKED, headers={"Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            size = len(answer.read())
        except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            return HostState({"error": f"cannot be asked over the network: {error}"}, (0, 0), "")
        seen = f"Server: {answer.headers['Server']} {answer.status} {size}"
        if seen != state.answer:
            return replace(state, status=state.status | {"error": f"answers {seen}"}, answer=seen)
        return state

    def note_kept(self) -> bool:
        """Remember what every host has now; False where one has still its first baseline."""
        self.kept = {host: state.running.configuration for host, state in self.states().items()}
        return all(self.kept[host] != first.configuration for host, first in self.baselines.items())

    def on_first_baseline(self) -> bool:
        return all(state.running == self.baselines[host] for host, state in self.states().items())

    def reset(self) -> None:
        """Take back what runs have kept; nothing when they kept nothing. Raises RuntimeError."""
        self.kept = {}
        if self.on_first_baseline():
            return
        self._commit()
        if not self.on_first_baseline():
            raise RuntimeError(f"the fleet cannot be put back: {self.states()}")
        shutil.rmtree(self.folder / "tmp")
        (self.folder / "tmp").mkdir()

    def _commit(self) -> None:
        kept = self.project / "inventory" / self.name / "group_vars/all/zz-kept.yml"
        kept.unlink(missing_ok=True)
        done = subprocess.run(
            ["ansible-playbook", "-i", f"inventory/{self.name}", "playbooks/commit.yml"],
            cwd=self.project, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the fleet cannot be put back: {(done.stdout + done.stderr)[-2000:]}")
