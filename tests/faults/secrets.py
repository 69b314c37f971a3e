"""Secrets of the operator that must be found nowhere but where they belong: the cloud's token and the fleet's key."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.faults.bay import Bay

SAMPLE_SECONDS = 0.1
ON_HOSTS = "/var/lib/ratchet /etc/nginx /run/ratchet /tmp /var/tmp /var/log/nginx /var/www/ratchet-dashboard"


def planted(bay: Bay) -> list[str]:
    """Texts that give a secret away: the token, and the lines of the private key that hold its private half."""
    lines = bay.key_file.read_text().splitlines()
    return [bay.environment["HCLOUD_TOKEN"], *lines[3:-1]]


def leaked_here(bay: Bay, secrets: list[str]) -> list[str]:
    """Files of the project and of the controller's temporary folder that hold a secret."""
    wanted = [secret.encode() for secret in secrets]
    found = []
    for folder in (bay.project, bay.folder / "output", bay.folder / "tmp"):
        for path in folder.rglob("*"):
            if path == bay.key_file or path.is_symlink() or not path.is_file():
                continue
            try:
                content = path.read_bytes()
            except OSError:
                continue
            if any(secret in content for secret in wanted):
                found.append(f"{path} holds a secret")
    return found


def leaked_on_hosts(bay: Bay, secrets: list[str]) -> list[str]:
    """Files and journal lines of the hosts that hold a secret."""
    script = f"cat >/run/patterns; grep -rlFf /run/patterns {ON_HOSTS} 2>/dev/null; "
    script += "journalctl --no-pager -q --since=-10min | grep -qFf /run/patterns && echo the journal; "
    script += "rm -f /run/patterns"
    return [
        f"{host.name}: {line} holds a secret"
        for host in bay.hosts
        for line in host.run(script, stdin="\n".join(secrets), check=False).splitlines()
    ]


class ArgumentSampler(threading.Thread):
    """Looks at the arguments of every process of this machine, and of the hosts on it, for as long as it runs."""

    def __init__(self, secrets: list[str]) -> None:
        super().__init__(name="arguments", daemon=True)
        self._secrets = [secret.encode() for secret in secrets]
        self._stop_it = threading.Event()
        self.samples = 0
        self.found: set[str] = set()

    def run(self) -> None:
        while not self._stop_it.is_set():
            for process in Path("/proc").iterdir():
                if not process.name.isdigit():
                    continue
                try:
                    arguments = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                if any(secret in arguments for secret in self._secrets):
                    self.found.add(f"the arguments of a process hold a secret: {arguments[:60]!r}...")
            self.samples += 1
            time.sleep(SAMPLE_SECONDS)

    def stop(self) -> list[str]:
        self._stop_it.set()
        self.join()
        return sorted(self.found) if self.samples else ["the arguments of processes were never looked at"]
