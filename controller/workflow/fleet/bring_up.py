"""Take one server from ordered to trusted and ready for Ansible. Every step may be repeated after a crash."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from controller.adapters.files.keys import HostSeeds
from controller.adapters.files.known_hosts import KnownHosts
from controller.adapters.hetzner import FLEET_LABEL, Cloud, CloudServer, ServerOrder, Unavailable, user_data
from controller.adapters.ssh import connect
from controller.model.errors import HostFailed, Interrupted
from controller.model.fleet import Host, Placement
from controller.model.project import Project

# Each has a deadline of its own; the cloud's action has one too (adapters/hetzner).
TCP_SECONDS = 180.0
LOGIN_SECONDS = 90.0
CLOUD_INIT_SECONDS = 300.0
RETRY_SECONDS = 0.5
SSH_PORT = 22
# Of `cloud-init status --wait`: done, or done with warnings.
CLOUD_INIT_DONE = {0, 2}
# Of `timeout`.
SLICE_IS_OVER = 124

NEW_HOST_KEY = """sudo -n sh -c 'set -e; cd /etc/ssh
rm -f ssh_host_ed25519_key.new ssh_host_ed25519_key.new.pub
ssh-keygen -q -t ed25519 -N "" -C "" -f ssh_host_ed25519_key.new
cat ssh_host_ed25519_key.new.pub'"""
USE_NEW_HOST_KEY = """sudo -n sh -c 'set -e; cd /etc/ssh
mv ssh_host_ed25519_key.new.pub ssh_host_ed25519_key.pub
mv ssh_host_ed25519_key.new ssh_host_ed25519_key
sync; systemctl reload ssh'"""


@dataclass(frozen=True)
class FleetOrder:
    """What all servers of a provisioning have in common."""

    project: Project
    fleet: str
    image: str
    placements: list[Placement]
    labels: dict[str, str]
    public_key: str
    ssh_key: int
    firewall: int
    seeds: HostSeeds
    known_hosts: KnownHosts
    stop: threading.Event = field(default_factory=threading.Event)

    def sleep(self, seconds: float) -> None:
        """Pause, unless the operator stops the command. Raises Interrupted."""
        if self.stop.wait(seconds):
            raise Interrupted("stopped", next_step="run the command again: it goes on where it stopped")


@dataclass(frozen=True)
class Ready:
    """A host that can be set up, and whether this run had to do anything for it."""

    server: CloudServer
    changed: bool


# How far this run has come with creating a server; of one that is ordered only, the end was not seen.
Creation = Literal["", "ordered", "created"]


class BringUp:
    """One host's way. `say` is told each step in words, `note` how far its creation has come."""

    def __init__(
        self,
        order: FleetOrder,
        cloud: Cloud,
        name: str,
        index: int,
        *,
        say: Callable[[str], None],
        note: Callable[[Creation], None],
    ) -> None:
        self._note = note
        self._order = order
        self._cloud = cloud
        self._name = name
        self._index = index
        self._say = say

    def run(self, existing: CloudServer | None) -> Ready:
        """Create the server unless it exists, then wait until it is trusted, booted and logged into.

        Raises HostFailed, naming the host; a later run goes on from there.
        """
        changed = existing is None
        server = existing if existing is not None else self._create()
        if server.status == "off":
            self._say("starting")
            self._cloud.power_on(server)
            changed = True
        wanted = server.labels | self._order.labels | {FLEET_LABEL: self._order.fleet}
        if server.labels != wanted:
            self._cloud.set_labels(server, wanted)
            changed = True
        if not server.address:
            raise HostFailed("it has no public IPv4 address", where=self._name, next_step="give it one, or delete it")
        host = Host(
            name=self._name,
            address=server.address,
            key_file=self._order.project.key_file(self._order.fleet),
            known_hosts=self._order.known_hosts.path,
        )
        if self._reach(host):
            changed = True
        return Ready(server, changed)

    def _create(self) -> CloudServer:
        order = self._order
        private, public = order.seeds.create(self._name)
        group, _ = self._cloud.placement_group(order.fleet, self._index, order.labels)
        refusal: Unavailable | None = None
        for placement in order.placements:
            self._say(f"creating a {placement.type} in {placement.location}")
            self._note("ordered")
            try:
                server = self._cloud.create_server(
                    ServerOrder(
                        name=self._name,
                        image=order.image,
                        placement=placement,
                        user_data=user_data(public_key=order.public_key, host_private=private, host_public=public),
                        labels=order.labels | {FLEET_LABEL: order.fleet},
                        ssh_key=order.ssh_key,
                        firewall=order.firewall,
                        placement_group=group,
                    )
                )
            except Unavailable as error:
                refusal = error
                self._note("")
                self._say(f"{placement.type} in {placement.location} is out of stock")
            else:
                self._note("created")
                return server
        if refusal is None:
            raise HostFailed("no placement to try", where=self._name)
        raise HostFailed(refusal.what, where=self._name, next_step=refusal.next_step)

    def _reach(self, host: Host) -> bool:
        """Wait for TCP 22, the first login and cloud-init; replace a seed. Returns whether anything was changed."""
        order = self._order
        seed, successor = order.seeds.seed(self._name), order.seeds.successor(self._name)
        if not seed and not order.known_hosts.key_of(host.address):
            raise HostFailed(
                "its host key is not known on this machine, and trust on first use is not an option",
                where=f"{host.name} ({host.address})",
                next_step=f"copy {host.known_hosts} from where it was provisioned, or delete the server and run again",
            )
        self._await_port(host)
        self._say("logging in")
        # The server shows its successor's key when an earlier run died between its switch and our note of it.
        shown = self._log_in(host, [seed, successor] if seed and successor else [seed])
        self._await_cloud_init(host)
        if not seed:
            return False
        if shown != successor or not successor:
            self._say("replacing its first host key")
            successor = self._replace_host_key(host)
        order.seeds.forget(self._name)
        return True

    def _await_port(self, host: Host) -> None:
        self._say("waiting for SSH")
        deadline = time.monotonic() + TCP_SECONDS
        while True:
            try:
                socket.create_connection((host.address, SSH_PORT), timeout=3).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HostFailed(
                        f"port 22 does not answer after {TCP_SECONDS:.0f} s: {error.strerror or 'no answer in time'}",
                        where=f"{host.name} ({host.address})",
                        next_step="is this machine within `ssh_sources`? look at the server's console, then run again",
                    ) from None
                self._order.sleep(RETRY_SECONDS)
            else:
                return

    def _log_in(self, host: Host, candidates: list[str]) -> str:
        """Log in, trusting only the candidate keys (an empty one: what known_hosts has); returns the one it shows.

        sshd may answer before cloud-init has given it its key and user, so a refusal counts only at the deadline.
        """
        deadline = time.monotonic() + (LOGIN_SECONDS if candidates[0] else 0.0)
        while True:
            for key in candidates:
                if key:
                    self._order.known_hosts.trust(host.address, key)
                try:
                    with connect(host, user=host.admin_user, attempts=1 if key else 3):
                        return key
                except HostFailed as error:
                    failure = error
            if time.monotonic() > deadline:
                raise failure
            self._order.sleep(RETRY_SECONDS)

    def _await_cloud_init(self, host: Host) -> None:
        self._say("waiting for cloud-init")
        deadline = time.monotonic() + CLOUD_INIT_SECONDS
        with connect(host, user=host.admin_user) as ssh:
            # In slices, so that the operator's Ctrl-C is heard between them.
            code = SLICE_IS_OVER
            while code == SLICE_IS_OVER and time.monotonic() < deadline:
                code, out, err = ssh.run("timeout 5 cloud-init status --wait --long", timeout=60)
                self._order.sleep(0)
        if code not in CLOUD_INIT_DONE:
            trouble = f"is not done after {CLOUD_INIT_SECONDS:.0f} s" if code == SLICE_IS_OVER else "failed"
            raise HostFailed(
                f"cloud-init {trouble}: {' '.join((out + err).split())[-400:]}",
                where=host.name,
                next_step="see /var/log/cloud-init-output.log there; if it cannot be mended, delete the server and run "
                "the command again",
            )

    def _replace_host_key(self, host: Host) -> str:
        with connect(host, user=host.admin_user) as ssh:
            public = self._run(host, ssh.run(NEW_HOST_KEY, timeout=30)).strip()
            if not public.startswith("ssh-ed25519 ") or len(public.split()) < 2:
                raise HostFailed(f"ssh-keygen gave no key: {public[:100]!r}", where=host.name)
            self._order.seeds.announce(self._name, public)
            self._run(host, ssh.run(USE_NEW_HOST_KEY, timeout=30))
        return self._log_in(host, [public])

    def _run(self, host: Host, outcome: tuple[int, str, str]) -> str:
        code, out, err = outcome
        if code != 0:
            raise HostFailed(
                f"its host key could not be replaced: {(err or out).strip()[-300:]}",
                where=host.name,
                next_step="mend what it names, then run the command again",
            )
        return out
