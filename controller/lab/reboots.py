"""Servers that reboot themselves: in a container, `reboot` only ends it, so the lab switches the server on again."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import threading

from controller.lab.hosts import Hosts
from controller.lab.state import LABEL
from controller.model.errors import RatchetError

log = logging.getLogger("ratchet.lab")
# The kernel ends a container's init with SIGHUP when it asked for a reboot, with SIGINT when it asked for power-off.
REBOOT_CODE = 129
# Where podman keeps its events in a file, a listener may hear nothing more once that was rotated.
LOOK_SECONDS = 5.0


class Reboots:
    """Hears of it by podman's events, and looks every few seconds; `catch_up` does what a killed API missed."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._events: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        self._events = subprocess.Popen(
            # The kernel ends the listener together with this process, however that ends.
            [
                *("setpriv", "--pdeathsig", "TERM", "podman", "events", "--format", "{{.Name}}"),
                *("--filter", f"label={LABEL}={self._hosts.lab}", "--filter", "event=died"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        threading.Thread(target=self._watch, args=(self._events,), name="reboots", daemon=True).start()
        self.catch_up()

    def close(self) -> None:
        if self._events is not None:
            self._events.terminate()
            self._events.wait(timeout=10)

    def _watch(self, events: subprocess.Popen[bytes]) -> None:
        assert events.stdout is not None  # noqa: S101 - narrows the type
        while True:
            ready, _, _ = select.select([events.stdout], [], [], LOOK_SECONDS)
            if ready and not os.read(events.stdout.fileno(), 4096):
                return
            self.catch_up()

    def catch_up(self) -> None:
        try:
            for server_id, container in self._hosts.all().items():
                if container.state == "exited" and container.exit_code == REBOOT_CODE:
                    log.info("server %s reboots", server_id)
                    self._hosts.start(server_id)
        except RatchetError as error:
            log.error("watching for reboots: %s", error)
