"""Stands in for `ratchet-host session` where no systemd runs nginx: the same words, and real reloads of a real nginx.

usage: session_double.py FOLDER --lease SECONDS --design switchback|duet [what else ratchet-host session takes]

FOLDER holds `settings.json` and one nginx folder an instance (`live`; `a` and `b` in a duet), its master running.
Everything that it is told is appended to `session.log`. Without instances it only answers.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


class Instance:
    """One running nginx with its folder."""

    def __init__(self, folder: Path, configurations: dict[str, str]) -> None:
        self.folder = folder
        self.master = int((folder / "nginx.pid").read_text())
        self._configurations = configurations

    def shown(self) -> str | None:
        """The configuration in the file, which is what its workers run once somebody has reloaded them."""
        text, frame = (self.folder / "nginx.conf").read_text(), (self.folder / "frame.conf").read_text()
        names = [name for name, http in self._configurations.items() if frame.replace("@HTTP@", http) == text]
        return names[0] if names else None

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        return {int(child) for child in children}

    def switch(self, configuration: str) -> float:
        started = time.monotonic()
        text = self._configurations[configuration]
        (self.folder / "nginx.conf").write_text((self.folder / "frame.conf").read_text().replace("@HTTP@", text))
        old = self.workers()
        os.kill(self.master, signal.SIGHUP)
        while time.monotonic() - started < 10:
            now = self.workers()
            if now and not now & old:
                return round(time.monotonic() - started, 3)
            time.sleep(0.01)
        raise TimeoutError(f"the old workers of {self.folder.name} do not leave")

    def figures(self) -> dict[str, Any]:
        cpu = rss = files = 0
        for pid in {self.master, *self.workers()}:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")
            rss += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return {"configuration": self.shown(), "cpu_us": cpu, "rss_bytes": rss, "open_files": files}


class Session:
    def __init__(self, folder: Path, design: str) -> None:
        self.folder = folder
        self.settings = json.loads((folder / "settings.json").read_text())
        names = self.settings["instances"].get(design, [])
        self.instances = {name: Instance(folder / name, self.settings["configurations"]) for name in names}
        self.duet = design == "duet"

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name = command["command"]
        if self.settings.get("hang_at") == name:
            self.log(f"hangs as {os.getpid()}")
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.settings.get("refuse") == name:
            raise RuntimeError("nginx: [emerg] as the test wishes")
        if name == "switch":
            seconds = self.instances["live"].switch(command["configuration"]) if self.instances else 0.0
            return {"configuration": command["configuration"], "seconds": seconds}
        if name == "assign":
            seconds = sum(self.instances[side].switch(command[side]) for side in "ab")
            return {"a": command["a"], "b": command["b"], "ports": self.settings["ports"], "seconds": round(seconds, 3)}
        if name == "metrics":
            figures = {side: instance.figures() for side, instance in self.instances.items()}
            return {"instances": figures} if self.duet else figures.get("live", {})
        if name == "end":
            return {"configuration": self.settings["confirmed"], "verified": self.restore()}
        return {}

    def restore(self) -> bool:
        if "live" in self.instances:
            self.instances["live"].switch(self.settings["confirmed"])
        self.log("restored")
        return True

    def log(self, text: str) -> None:
        with (self.folder / "session.log").open("a") as log:
            log.write(text + "\n")


def main() -> None:
    session = Session(Path(sys.argv[1]), sys.argv[sys.argv.index("--design") + 1])

    def say(document: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()

    session.log(" ".join(sys.argv[2:]))
    if "refuse_start" in session.settings:
        sys.exit(str(session.settings["refuse_start"]))
    ended = False
    try:
        say({"ok": True, "command": "ready", "confirmed": session.settings["confirmed"], "lease_seconds": 60})
        for line in sys.stdin:
            command = json.loads(line)
            session.log(line.strip())
            try:
                answer = {"ok": True, "command": command["command"], **session.answer(command)}
            except (OSError, RuntimeError, KeyError) as error:
                answer = {"ok": False, "command": command["command"], "error": str(error)}
            ended = command["command"] == "end"
            say(answer)
            if ended or session.settings.get("die_after") == command["command"]:
                break
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        if not ended:
            session.restore()


main()
