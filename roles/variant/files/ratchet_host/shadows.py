"""Shadow instances: second nginxes under units of systemd's, for duets."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import stat
import time
from pathlib import Path

from ratchet_host import paths, system
from ratchet_host.errors import Refused
from ratchet_host.figures import ErrorLog, Figures
from ratchet_host.files import point, write_atomically
from ratchet_host.instance import unit_master, workers
from ratchet_host.language import Directive
from ratchet_host.marks import SHADOW, carried, new_mark, with_mark
from ratchet_host.nginx import ANSWER_SECONDS, test
from ratchet_host.paths import configuration_file
from ratchet_host.processes import POLL_SECONDS, Process
from ratchet_host.reload import Reload
from ratchet_host.removal import remove
from ratchet_host.shadow_folder import ShadowFolder, available_memory, empty_log, folder_bytes
from ratchet_host.shadow_places import ShadowPlace
from ratchet_host.shadow_text import BY_WORKERS, MAX_PORTS, ShadowText
from ratchet_host.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIRST_PORT = {"a": 21000, "b": 22000}
PORT_RANGE = 1000
# A shadow that outlives everything that should have ended it.
SHADOW_SECONDS = 6 * 3600
LEAST_MEMORY = 128 << 20


def port_is_free(protocol: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Shadow(ShadowPlace):
    """One shadow instance: a second nginx under a transient unit of systemd's.

    Its workers have the live instance's account, whose files and sockets they need (nginx drops any other group that a
    unit gives): so what they write is in a place of bounded size, which ends with the instance and lets in only root
    and that account's group. From other processes of that account nothing can protect it, hence root reads no file
    there whose folder they may write in.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._place = ShadowFolder(self.data)
        self._access_logs: set[Path] = set()
        self.ports: dict[tuple[str, int], int] = {}
        self.figures = Figures()
        self.errors = ErrorLog(self._error_log)
        self._tested: set[str] = set()
        self._reload: Reload | None = None
        self._parent: Process | None = None
        self._mark = 0
        self._configuration = ""

    def allocate(self, protocol: str, port: int) -> int:
        """The instance's own port for a port of the live one; the same one for as long as the instance lives."""
        known = self.ports.get((protocol, port))
        if known is not None:
            return known
        if len(self.ports) >= MAX_PORTS:
            raise Refused("the configuration listens on too many ports for a shadow; use the design switchback")
        first = FIRST_PORT[self.name]
        for offset in range(PORT_RANGE):
            own = first + (port + offset) % PORT_RANGE
            if own not in self.ports.values() and port_is_free(protocol, own):
                self.ports[protocol, port] = own
                return own
        raise Refused(f"no free port from {first} to {first + PORT_RANGE - 1} for a shadow instance")

    def begin(self, identity: str, limits: list[str]) -> dict[int, int]:
        """Give it a configuration: start it, or reload it without waiting; returns port -> own port."""
        tree = Tree(configuration_file(identity))
        if self._parent is None or not self._parent.alive:
            self._parent = None
            self._begin_fresh()
        else:
            self._keep_small()
        shadow = ShadowText(tree.directives, self.run, self.data, self.allocate, self._place.size // 4)
        self._access_logs |= shadow.access_logs
        self._place.let_in(worker_group(tree.directives))
        for folder in sorted(shadow.folders):
            self._create(folder)
        for folder in sorted(shadow.shared_folders):
            self._create(folder, like=Path("/") / folder.relative_to(self.data / BY_WORKERS))
        # New each time, so that it shows whether a reload was taken; the other instance's is another.
        self._mark = new_mark({self._mark}, SHADOW[self.name == "b" :: 2])
        self._configuration = identity
        content = with_mark(shadow.text.encode("utf-8", "surrogateescape"), self._mark)
        # What it includes may be root's secret.
        write_atomically(self.run / "nginx.conf", content, 0o600)
        if self.link.is_symlink() is False:
            point(self.link, str(self.run / "nginx.conf"))
        text = hashlib.sha256(shadow.text.encode("utf-8", "surrogateescape")).hexdigest()
        if text not in self._tested:
            problem = test(self.run / "nginx.conf", f"shadow-{self.name}")
            if problem:
                raise Refused(f"a shadow instance cannot run {identity}: {problem}")
            self._tested.add(text)
        if self._parent is not None:
            self._reload = Reload(self._parent, self._mark, self._error_log(), name=f"shadow instance {self.name}")
        else:
            self._reload = None
            self._parent = self._start(limits)
        return shadow.ports

    def _begin_fresh(self) -> None:
        """Folders that nothing of an earlier instance is in. Raises Refused."""
        self._access_logs.clear()
        self._tested.clear()
        remove(self.run)
        try:
            self.run.mkdir(mode=0o700)
        except FileExistsError:
            raise Refused(f"{self.run} is in the way of a shadow instance and cannot be moved; delete it") from None
        self._place.make()

    def _keep_small(self) -> None:
        """Empty the logs of requests that have grown, which nobody reads. Raises Refused when that is not enough."""
        for log in self._access_logs:
            empty_log(log)
        if self._place.is_full():
            raise Refused(
                f"shadow instance {self.name} has filled the {self._place.size >> 20} MiB that it may write with logs, "
                "caches and temporary files; let the trial ask for less, or use the design switchback"
            )

    def metrics(self) -> dict[str, Any]:
        """Its figures, and what its workers show that they run (None when they show something else).

        Raises Refused when it has died or outgrown its place.
        """
        marks = {carried(worker.pid) for worker in workers(self.parent)}
        runs: dict[str, Any] = {"configuration": self._configuration if marks == {self._mark} else None}
        figures = runs | self.figures.read(self.parent) | self.errors.read()
        self._keep_small()
        return figures

    def _create(self, folder: Path, like: Path | None = None) -> None:
        """A folder below `data`, root's own; with `like`, of that folder's owner and mode.

        Raises Refused where another user could have put a link in the way.
        """
        own = self.data
        for part in folder.relative_to(self.data).parts:
            parent, own = own, own / part
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(own.lstat().st_mode):
                    raise Refused(f"{own} is not a folder")
                continue
            if parent.lstat().st_uid != 0:
                raise Refused(
                    f"a shadow instance needs {own.relative_to(self.data)}, in a folder that is not root's; use the "
                    "design switchback"
                )
            own.mkdir()
        if like is not None and own.lstat().st_uid == 0:
            with contextlib.suppress(FileNotFoundError):
                status = like.stat()
                os.chown(own, status.st_uid, status.st_gid)
                own.chmod(stat.S_IMODE(status.st_mode))

    def _error_log(self) -> Path:
        return self.data / "var/log/nginx/error.log"

    def _start(self, limits: list[str]) -> Process:
        code, text = system.run(
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={self.unit}",
            "--service-type=exec",
            "--description=Shadow instance of nginx for a trial",
            *(f"--property={limit}" for limit in (*limits, *self._place.limits())),
            *self._place.command(),
            paths.NGINX,
            "-c",
            str(self.link),
            "-g",
            "daemon off;",
            timeout=20,
        )
        parent = unit_master(self.unit)
        if code or parent is None:
            raise Refused(f"shadow instance {self.name} does not start: {text[-300:] or self._last_words()}")
        return parent

    def _last_words(self) -> str:
        try:
            return self._error_log().read_text(errors="replace")[-4096:].strip().splitlines()[-1][-300:]
        except (OSError, IndexError):
            return f"see journalctl -u {self.unit}"

    def finish(self, ports: dict[int, int]) -> None:
        """Wait until it serves the configuration it was given. Raises Refused."""
        parent = self._parent
        if parent is None:
            raise Refused(f"shadow instance {self.name} does not run")
        if self._reload is not None:
            self._reload.wait(patience=5, strict=True)
        deadline = time.monotonic() + ANSWER_SECONDS
        pending = set(ports.values())
        while pending or not workers(parent):
            if not parent.alive:
                raise Refused(f"shadow instance {self.name} has ended: {self._last_words()}")
            pending = {port for port in pending if not accepts(port)}
            if time.monotonic() > deadline:
                raise Refused(f"shadow instance {self.name} does not serve: {self._last_words()}")
            time.sleep(POLL_SECONDS)

    @property
    def parent(self) -> Process:
        if self._parent is None or not self._parent.alive:
            raise Refused(f"shadow instance {self.name} does not run")
        return self._parent


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def worker_group(directives: list[Directive]) -> int | None:
    """The group that nginx's workers get by a configuration; None when it does not say."""
    words = next((directive.arguments for directive in directives if directive.name == "user"), [])
    with contextlib.suppress(ImportError, KeyError):
        import grp

        return grp.getgrnam(words[-1]).gr_gid if words else None
    return None


def shadow_limits(parent: Process) -> list[str]:
    """What a shadow may use: it yields to live traffic, and dies before the live instance does. Raises Refused."""
    available = available_memory()
    if available < LEAST_MEMORY:
        raise Refused(f"only {available >> 20} MiB of memory are free, a duet needs {LEAST_MEMORY >> 20}")
    limits = [
        # What it writes counts too.
        f"MemoryMax={max(64 << 20, available * 3 // 10) + folder_bytes(available)}",
        "MemorySwapMax=0",
        "CPUWeight=50",
        "IOWeight=50",
        "OOMScoreAdjust=500",
        "TasksMax=512",
        "KillMode=mixed",
        "TimeoutStopSec=3",
        f"RuntimeMaxSec={SHADOW_SECONDS}",
    ]
    with contextlib.suppress(OSError):
        match = re.search(r"Max open files\s+(\d+)\s+(\d+)", (paths.PROC / str(parent.pid) / "limits").read_text())
        if match:
            limits.append(f"LimitNOFILE={match[1]}:{match[2]}")
    return limits
