"""One run per fleet on this machine: an OS file lock that dies with its process, with the holder's name inside."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import re
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from controller.adapters.files.private_state import state_folder
from controller.model.errors import BadInput, FleetLocked, HostFailed, RatchetError
from controller.model.project import Project

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LOOKING_SECONDS = 1.0


@dataclass(frozen=True)
class Holder:
    """Who holds a fleet."""

    run_id: str
    pid: int
    user: str
    machine: str
    since: str

    def words(self) -> str:
        return f"run {self.run_id} of {self.user} on {self.machine} (pid {self.pid}) since {self.since}"


class FleetLock:
    """A context manager. Raises FleetLocked, naming the holder, when another live process has the fleet.

    Raises BadInput when a folder is in the place of the lock's file, HostFailed when the disk here takes no lock.
    """

    def __init__(self, project: Project, fleet: str, *, run_id: str, since: str) -> None:
        self._project = project
        self._path: Path = project.state / "locks" / fleet
        self._fleet = fleet
        self.held_by = Holder(run_id, os.getpid(), getpass.getuser(), socket.gethostname(), since)
        self._descriptor = -1

    @classmethod
    def holder(cls, project: Project, fleet: str) -> Holder | None:
        """Who holds a fleet now; None when nobody does, or when it has not yet said who it is. Raises HostFailed."""
        path = project.state / "locks" / fleet
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parse(os.read(descriptor, 4096).decode(errors="replace"))
        except OSError as error:
            raise _failed(path, error) from None
        finally:
            os.close(descriptor)
        return None

    @property
    def name(self) -> str:
        """`user@machine/3fa9c2d1`: the last part names this very lock file in this very boot of the machine.

        Whoever has the lock may therefore call an earlier holder of the same name dead.
        """
        file = os.fstat(self._descriptor)
        digest = hashlib.sha256(f"{BOOT_ID.read_text()}:{file.st_dev}:{file.st_ino}".encode()).hexdigest()[:8]
        user, machine = (re.sub(r"[^A-Za-z0-9._-]", "-", text) for text in (self.held_by.user, self.held_by.machine))
        return f"{user[:32] or '-'}@{machine[:64]}/{digest}"

    def __enter__(self) -> FleetLock:
        state_folder(self._project, "locks")
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._take()
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            raise _failed(self._path, error) from None
        return self

    def _take(self) -> None:
        deadline = time.monotonic() + LOOKING_SECONDS
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Who only looks (`holder`) has it for a moment too.
                if time.monotonic() >= deadline:
                    raise self._locked(os.read(self._descriptor, 4096).decode(errors="replace")) from None
                time.sleep(0.02)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(self.held_by)).encode(), 0)

    def _locked(self, text: str) -> FleetLocked:
        holder = _parse(text)
        return FleetLocked(
            f"fleet {self._fleet} is held by {holder.words() if holder else 'another process'}",
            where=self._fleet,
            next_step="wait for it to end, or stop it with Ctrl-C; the lock goes with its process",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def _failed(path: Path, error: OSError) -> RatchetError:
    if isinstance(error, IsADirectoryError):
        return BadInput("a folder is in the place of the fleet's lock", where=str(path), next_step=f"rmdir {path}")
    return HostFailed(
        f"the fleet's lock cannot be used: {error.strerror or error}",
        where=str(path),
        next_step="free the disk, or make the file and its folder yours, then run the command again",
    )


def _parse(text: str) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None
