#!/usr/bin/python
"""Ansible module: root's program in one call, all of it or nothing.

A lease may run out and power may fail while it is installed: no call may ever find modules of two versions. Two
playbooks may install it at once: one waits for the other, and what may be linked in a moment is never taken away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ratchet_program
short_description: Install root's program and its units
description:
  - Puts the package into a folder of its own, then moves the link C(ratchet_host) there, then replaces the programs.
  - In a play the action plugin of the same name reads O(rooms) and O(programs) from the role.
options:
  rooms:
    description: The text of each module of the package by its file name.
    type: dict
    default: {}
  programs:
    description: The text of each program that is called, by its file name.
    type: dict
    default: {}
  units:
    description:
      - The text of each unit by its name. systemd is asked whether it has read it, whether one with C([Install]) is
        enabled, and whether one whose C(Environment) has C(RATCHET_TEXT) runs as it is.
    type: dict
    default: {}
  units_folder:
    description: Where the units are. systemd is asked only about its own folder.
    type: path
    default: /etc/systemd/system
  library:
    description: The folder that the package is installed in.
    type: path
    default: /usr/local/lib/ratchet
  folder:
    description: Where the programs are.
    type: path
    default: /usr/local/sbin
  compiled:
    description: Where the compiled forms are kept; an update empties it.
    type: path
    default: /run/ratchet/compiled
author: Ratchet
"""

EXAMPLES = r"""
- name: Install root's program
  ratchet_program: {}
"""

RETURN = r"""
differing:
  description: What was not there as it is in the role.
  returned: always
  type: list
"""

FOLDER = "program-"
# Never removed: whoever waits for it would hold a lock on nothing.
LOCK = ".lock"
LOCK_SECONDS = 60
# A folder this young may be linked in a moment, by a playbook of a version that takes no lock.
YOUNG_SECONDS = 600
SYSTEMD = Path("/etc/systemd/system")
RUNNING = "RATCHET_TEXT="


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, text: str, mode: int) -> None:
    path.write_bytes(text.encode())
    path.chmod(mode)
    sync(path)


def has(path: Path, mode: int) -> bool:
    """Whether it is there, root's, with that mode."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_IMODE(status.st_mode) == mode and (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


def as_it_should_be(path: Path, text: str, mode: int) -> bool:
    return has(path, mode) and path.is_file() and path.read_bytes() == text.encode()


def place(path: Path, text: str, mode: int) -> None:
    """Replace it at once."""
    candidate = path.with_name(f".{path.name}.new")
    candidate.unlink(missing_ok=True)
    write(candidate, text, mode)
    candidate.replace(path)
    sync(path.parent)


class Program:
    """The program as it is on this host, and as it should be."""

    def __init__(
        self, rooms: dict[str, str], programs: dict[str, str], library: Path, folder: Path, compiled: Path
    ) -> None:
        self.rooms = rooms
        self.programs = {folder / name: text for name, text in programs.items()}
        self.compiled = compiled
        self.library = library
        self.link = library / "ratchet_host"
        # The program was this one file once.
        self.former = library / "ratchet_host.py"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else installs meanwhile. Raises OSError when another goes on for a minute."""
        deadline = time.monotonic() + LOCK_SECONDS
        with (self.library / LOCK).open("a", encoding="utf-8") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        words = "another playbook is installing the program; run this one again when that has ended"
                        raise OSError(errno.EBUSY, words, lock.name) from None
                    time.sleep(0.1)
            yield

    def differing(self) -> list[str]:
        """Names of what is not as it should be."""
        package = self.link.resolve()
        present = {path.name for path in package.iterdir()} if package.is_dir() else set()
        found = [name for name, text in self.rooms.items() if not as_it_should_be(package / name, text, 0o644)]
        found += [folder.name for folder in (package.parent, package) if not has(folder, 0o755)]
        found += present - set(self.rooms)
        found += [path.name for path, text in self.programs.items() if not as_it_should_be(path, text, 0o755)]
        found += [self.former.name] if self.former.exists() else []
        return sorted(found)

    def install(self) -> None:
        """After a crash at any line the old program answers, or the new one. Raises OSError."""
        if self.link.is_dir() and not self.link.is_symlink():
            # As from a backup that followed links: it answers, so it is not for this module to take it away.
            words = "is a folder where a link belongs; move it away while no trial runs, then run the playbook again"
            raise OSError(errno.EISDIR, words, str(self.link))
        before = self.link.readlink().parts[0] if self.link.is_symlink() else ""
        new = Path(tempfile.mkdtemp(prefix=FOLDER, dir=self.library))
        package = new / self.link.name
        package.mkdir()
        for name, text in self.rooms.items():
            write(package / name, text, 0o644)
        for folder in (package, new):
            folder.chmod(0o755)
            sync(folder)
        following = self.library / f".{self.link.name}.new"
        following.unlink(missing_ok=True)
        following.symlink_to(f"{new.name}/{self.link.name}")
        following.replace(self.link)
        sync(self.library)
        # The programs last: until now those of an earlier version found their own package.
        for path, text in self.programs.items():
            if not as_it_should_be(path, text, 0o755):
                place(path, text, 0o755)
        self._clean({new.name, before})

    def _clean(self, wanted: set[str]) -> None:
        """Best effort. A call that has begun may still load modules of the version before; older ones are done."""
        with contextlib.suppress(OSError):
            self.former.unlink(missing_ok=True)
            wanted = wanted | {self.link.readlink().parts[0]}
            for folder in self.library.glob(f"{FOLDER}*"):
                if folder.name not in wanted and time.time() - folder.stat().st_mtime > YOUNG_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.compiled, ignore_errors=True)


class Units:
    """The units as they are, and as systemd has them: a run may end between a file and what makes systemd read it."""

    def __init__(self, units: dict[str, str], folder: Path, run: Callable[[list[str]], tuple[int, str, str]]) -> None:
        self.units = {folder / name: text for name, text in units.items()}
        self.folder = folder
        self.run = run

    def differing(self) -> list[str]:
        return [path.name for path, text in self.units.items() if not as_it_should_be(path, text, 0o644)]

    def waiting(self) -> dict[str, list[str]]:
        """What systemd does not do as the files say: a command of systemctl's, and for which units."""
        if self.folder != SYSTEMD or not self.units:
            return {}
        properties = "--property=NeedDaemonReload,UnitFileState,LoadState,MainPID"
        _, said, _ = self.run(["systemctl", "show", properties, *(path.name for path in self.units)])
        found: dict[str, list[str]] = {"daemon-reload": [], "enable": [], "restart": []}
        for (path, text), block in zip(self.units.items(), said.split("\n\n"), strict=False):
            facts = dict(line.partition("=")[::2] for line in block.splitlines())
            if facts.get("NeedDaemonReload") != "no" or facts.get("LoadState") != "loaded":
                found["daemon-reload"].append(path.name)
            if "[Install]" in text and facts.get("UnitFileState") != "enabled":
                found["enable"].append(path.name)
            if RUNNING in text and not runs(facts.get("MainPID", "0"), text):
                found["restart"].append(path.name)
        return {command: names for command, names in found.items() if names}

    def install(self) -> None:
        """Write them, and have systemd go by them. Raises OSError."""
        for path, text in self.units.items():
            if not as_it_should_be(path, text, 0o644):
                place(path, text, 0o644)
        for command, names in self.waiting().items():
            code, out, err = self.run(["systemctl", command, *(names if command != "daemon-reload" else [])])
            if code != 0:
                words = f"systemctl {command} {' '.join(names)}: {(err or out).strip()}"
                raise OSError(errno.EIO, words, str(self.folder))


def runs(pid: str, text: str) -> bool:
    """Whether that process was started from this text of its unit, and so from the program that the text names."""
    wanted = next(word for word in text.replace('"', "").replace("=RATCHET", " RATCHET").split() if RUNNING in word)
    try:
        return wanted.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def main() -> None:
    # The program is no secret, but the host's journal needs no copy of it.
    module = AnsibleModule(
        argument_spec={
            "rooms": {"type": "dict", "default": {}, "no_log": True},
            "programs": {"type": "dict", "default": {}, "no_log": True},
            "units": {"type": "dict", "default": {}, "no_log": True},
            "units_folder": {"type": "path", "default": str(SYSTEMD)},
            "library": {"type": "path", "default": "/usr/local/lib/ratchet"},
            "folder": {"type": "path", "default": "/usr/local/sbin"},
            "compiled": {"type": "path", "default": "/run/ratchet/compiled"},
        },
        supports_check_mode=True,
    )
    given = module.params
    program = Program(
        given["rooms"], given["programs"], Path(given["library"]), Path(given["folder"]), Path(given["compiled"])
    )
    units = Units(given["units"], Path(given["units_folder"]), module.run_command)

    def found() -> list[str]:
        return [*program.differing(), *units.differing(), *(f"systemctl {command}" for command in units.waiting())]

    try:
        differing = found()
        if differing and not module.check_mode:
            with program.alone():
                # Another may have installed it while this one waited.
                differing = found()
                if program.differing():
                    program.install()
                units.install()
    except OSError as error:
        module.fail_json(msg=f"{error.filename or program.library}: {error.strerror or error}")
    result = {"changed": bool(differing), "differing": differing}
    if module._diff:
        result["diff"] = {"prepared": "".join(f"{name}\n" for name in differing)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
