"""What is in force on a host: asked of the service itself, never concluded from what this run has written.

A run may end between a file and the reload that belongs to it; the next one finds the file as it should be.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shlex
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Run = Callable[[list[str]], tuple[int, str, str]]
INCLUDE = re.compile(r"\s*include[\s=]+(?P<patterns>.*)", re.IGNORECASE)
# As sshd says it, where that is not what one writes.
SYNONYMS = {"prohibit-password": "without-password"}
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what sshd listens on
SERVE_SECONDS = 10


class Service:
    """A service that goes by one of the role's files, once it has read it."""

    def __init__(self, path: Path, text: str, run: Run) -> None:
        self.path = path
        self.text = text
        self.run = run

    def objection(self) -> str:
        """Why the service as a whole would refuse to go by the text; empty if it would not."""
        return ""

    def remarks(self) -> list[str]:
        """What of the text somebody else's files undo: theirs to decide, and told."""
        return []

    def in_force(self) -> bool:
        raise NotImplementedError

    def load(self) -> str:
        """Bring the file into force; returns why it is not, empty if it is."""
        raise NotImplementedError

    def recover(self) -> str:
        """Serve again by the file that was there before; returns words on how that went."""
        return ""


class Ssh(Service):
    """The SSH daemon. What it runs by was read when it wrote its pid file: at its start and at each reload."""

    def __init__(self, path: Path, text: str, run: Run) -> None:
        super().__init__(path, text, run)
        self.effective: list[str] = []

    def objection(self) -> str:
        """The whole configuration as it would be: what this file says may not go with what others say."""
        with tempfile.TemporaryDirectory(prefix="ratchet-sshd-") as folder:
            parts = Path(folder) / "parts"
            parts.mkdir()
            for other in self.path.parent.iterdir() if self.path.parent.is_dir() else []:
                (parts / other.name).symlink_to(other)
            (parts / self.path.name).unlink(missing_ok=True)
            (parts / self.path.name).write_text(self.text, encoding="utf-8")
            main = Path(folder) / "sshd_config"
            ours = self.path.parent.parent / "sshd_config"
            main.write_bytes(b"".join(self._led(line, parts) for line in ours.read_bytes().splitlines(keepends=True)))
            said = self._ask("-f", str(main)).replace(f"{parts}/", f"{self.path.parent}/").replace(str(main), str(ours))
        if not said and not any(greets(*address) or may_listen(*address) for address in self._addresses()):
            said = "it could listen on none of its addresses"
        return f"sshd refuses it: {said}. Change that, or set base_ssh_hardening: false" if said else ""

    def _led(self, line: bytes, parts: Path) -> bytes:
        """A line of the main file; one that includes the file's folder leads to a copy of it."""
        found = INCLUDE.match(os.fsdecode(line))
        if not found:
            return line
        places = [self.path.parent.parent / pattern for pattern in shlex.split(found["patterns"], comments=True)]
        led = [parts / place.name if place.parent == self.path.parent else place for place in places]
        return os.fsencode("Include " + " ".join(f'"{place}"' for place in led) + "\n")

    def _ask(self, *options: str) -> str:
        """Have sshd tell what it would go by; returns why it refuses."""
        code, out, err = self.run(["/usr/sbin/sshd", "-T", *options])
        self.effective = out.splitlines() if code == 0 else []
        return "" if code == 0 else one_line(err or out) or f"it ended with {code}"

    def remarks(self) -> list[str]:
        values = dict(line.partition(" ")[::2] for line in self.effective)
        found = []
        for line in self.text.splitlines():
            keyword, _, value = line.partition(" ")
            said = values.get(keyword.lower())
            if said is None or keyword.startswith("#"):
                continue
            if value.startswith("-"):
                said = ",".join(one for one in said.split(",") if any_matches(one, value[1:].split(",")))
            elif "," in value or said.lower() in {value.lower(), SYNONYMS.get(value)}:
                continue
            if said:
                found.append(f"{keyword} {said}")
        return [f"not {self.path} but another file of sshd's decides on {'; '.join(found)}"] if found else []

    def in_force(self) -> bool:
        _, state, _ = self.run(
            ["systemctl", "show", "--property=ActiveState,StateChangeTimestampMonotonic", "ssh.service"]
        )
        facts = dict(line.partition("=")[::2] for line in state.splitlines())
        if facts.get("ActiveState") == "inactive":
            # A socket of systemd's starts one for each connection.
            return True
        if not self.effective:
            self._ask()
        try:
            pid_file = next(line.split()[1] for line in self.effective if line.startswith("pidfile "))
            loaded = Path(pid_file).stat().st_mtime
        except (StopIteration, OSError):
            since = int(facts.get("StateChangeTimestampMonotonic") or 0) / 1e6
            loaded = time.time() - (time.monotonic() - since)
        # A time that has not come yet is of a clock that was set back since: it tells nothing.
        return self.path.stat().st_ctime < loaded < time.time() + 1

    def load(self) -> str:
        # So that it is older than the reload whatever the clock did meanwhile.
        os.utime(self.path)
        code, out, err = self.run(["systemctl", "reload", "ssh.service"])
        if code != 0:
            return f"ssh.service is not reloaded: {one_line(err or out)}"
        deadline = time.monotonic() + SERVE_SECONDS
        while not (self.in_force() and self.answers()):
            if time.monotonic() > deadline:
                return f"sshd does not answer by it within {SERVE_SECONDS} s: see journalctl -u ssh"
            time.sleep(0.1)
        return ""

    def _addresses(self) -> list[tuple[str, int]]:
        words = [line.split()[1] for line in self.effective if line.startswith("listenaddress ")]
        return [(host.strip("[]"), int(port)) for host, _, port in (word.rpartition(":") for word in words)]

    def answers(self) -> bool:
        return any(greets(*address) for address in self._addresses())

    def recover(self) -> str:
        self._ask()
        for command in ("reset-failed", "reload-or-restart"):
            self.run(["systemctl", command, "ssh.service"])
        deadline = time.monotonic() + SERVE_SECONDS
        while not self.answers():
            if time.monotonic() > deadline:
                return "sshd does not answer by that either: use the connections that are open, or the console"
            time.sleep(0.1)
        return "sshd answers by that"


def one_line(said: str) -> str:
    return "; ".join(line.strip().rstrip(".") for line in said.splitlines())


def any_matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def greets(host: str, port: int) -> bool:
    """Whether an SSH daemon greets a new connection there."""
    try:
        with socket.create_connection((ANYWHERE.get(host, host), port), timeout=3) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def may_listen(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError:
        return False
    return True


class Kernel(Service):
    """Parameters of the kernel, in a file for systemd-sysctl."""

    def __init__(self, path: Path, text: str, run: Run, proc: Path = Path("/proc/sys")) -> None:
        super().__init__(path, text, run)
        self.proc = proc

    def differing(self) -> dict[str, str]:
        """What has another value and can be given ours. The missing and a container's host's are not ours to set."""
        found = {}
        for key, value in assignments(self.text).items():
            place = self.proc / key.replace(".", "/")
            if os.access(place, os.R_OK | os.W_OK) and place.read_text(encoding="utf-8").split() != value.split():
                found[key] = value
        return found

    def _later(self) -> dict[str, str]:
        """What a file that is read after this one sets otherwise; asked for only where a value differs."""
        wanted = self.differing()
        if not wanted:
            return {}
        _, out, _ = self.run(["systemd-analyze", "cat-config", "sysctl.d"])
        said = assignments(out)
        return {key: said[key] for key, value in wanted.items() if said.get(key, value) != value}

    def remarks(self) -> list[str]:
        later = self._later()
        return [f"another file of sysctl.d sets what {self.path} would: {key} = {later[key]}" for key in sorted(later)]

    def in_force(self) -> bool:
        return not set(self.differing()) - set(self._later())

    def load(self) -> str:
        later = self._later()
        for key, value in self.differing().items():
            if key not in later:
                try:
                    (self.proc / key.replace(".", "/")).write_text(value, encoding="utf-8")
                except OSError as error:
                    return f"{key} = {value} is not taken: {error.strerror}"
        return ""


def assignments(text: str) -> dict[str, str]:
    """Value by key of a file for systemd-sysctl; the last one counts."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().lstrip("-").partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            found[key.strip().replace("/", ".")] = " ".join(value.split())
    return found


class Firewall(Service):
    """Rules that were tried through a new connection. The record beside them tells which, and how nft lists them."""

    UNIT = Path("/etc/systemd/system/ratchet-firewall.service")
    UNDO = "ratchet-firewall-undo.timer"

    @property
    def candidate(self) -> Path:
        """Where rules wait that have not been tried."""
        return self.path.with_suffix(".untried")

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".tried")

    def in_force(self) -> bool:
        try:
            rules, unit, record = [path.read_bytes() for path in (self.path, self.UNIT, self.record)]
        except OSError:
            return False
        properties = "--property=ActiveState,UnitFileState,NeedDaemonReload"
        _, states, _ = self.run(["systemctl", "show", properties, self.UNIT.name, self.UNDO])
        firewall, _, undo = states.partition("\n\n")
        wanted = {"ActiveState=active", "UnitFileState=enabled", "NeedDaemonReload=no"}
        if rules != self.text.encode() or wanted - set(firewall.split()) or "ActiveState=active" in undo.split():
            return False
        code, listing, _ = self.run(["/usr/sbin/nft", "-s", "list", "table", "inet", "ratchet"])
        return code == 0 and record.decode().strip() == hashlib.sha256(unit + rules + listing.encode()).hexdigest()
