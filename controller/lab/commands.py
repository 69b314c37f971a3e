"""Running podman and its companions: one place that turns a failed command into an error with its own words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from controller.model.errors import HostFailed

TIMEOUT_SECONDS = 120.0


class CommandFailed(HostFailed):
    """A command ended with an error; `output` holds what it said, `code` how it exited (None: not at all)."""

    def __init__(self, command: Sequence[str], code: int | None, output: str) -> None:
        self.code = code
        self.output = output.strip()
        ending = "took too long" if code is None else f"exited {code}"
        super().__init__(
            f"`{' '.join(command[:4])} ...` {ending}: {self.output[-600:] or 'no output'}",
            where="lab",
            next_step="read the lab's log; `controller lab down`, then `controller lab up`, starts afresh",
        )


def run(command: Sequence[str], *, timeout: float = TIMEOUT_SECONDS, stdin: str | None = None) -> str:
    """Standard output of a command. Raises CommandFailed."""
    try:
        done = subprocess.run(  # noqa: PLW1510
            command, input=stdin, capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired as expired:
        raise CommandFailed(command, None, str(expired.stderr or "")) from expired
    except OSError as error:
        raise CommandFailed(command, 127, str(error)) from error
    if done.returncode != 0:
        raise CommandFailed(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def podman(*arguments: str, timeout: float = TIMEOUT_SECONDS) -> str:
    return run(["podman", *arguments], timeout=timeout)


def exists(kind: str, name: str) -> bool:
    """Whether podman has this container, image or network: it exits 1 for "no", more for errors, and may warn."""
    try:
        podman(kind, "exists", name)
    except CommandFailed as error:
        if error.code != 1:
            raise
        return False
    return True


def podman_json(*arguments: str) -> Any:
    return json.loads(podman(*arguments, "--format", "json") or "[]") or []
