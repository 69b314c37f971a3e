"""Commands of the system, its journal, and the answer on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import syslog

from ratchet_host.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TEST_SECONDS = 30.0


def log(message: str, priority: int = syslog.LOG_INFO) -> None:
    syslog.syslog(priority, message)


def run(
    *arguments: str, timeout: float = TEST_SECONDS, account: tuple[int, int] | None = None, folder: str | None = None
) -> tuple[int, str]:
    """Run a program; returns exit code and its output (both streams). Raises Refused when it does not end.

    `account`: as this user and group, and with no other group, instead of as root. `folder`: where.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # The kernel throws exit codes away then, and subprocess takes each for 0.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A terminal's signals are for us alone.
            start_new_session=True,
            user=account and account[0],
            group=account and account[1],
            extra_groups=() if account else None,
            cwd=folder,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{' '.join(arguments)} did not end within {timeout:.0f} s") from None
    except OSError as error:
        raise Refused(f"{arguments[0]}: {error.strerror}") from None
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a systemd unit."""
    code, text = run("systemctl", "show", unit, *(f"--property={name}" for name in properties))
    if code:
        raise Refused(f"systemctl show {unit}: {text[-300:]}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def emit(document: dict[str, Any]) -> None:
    """One line on stdout, at once. Raises OSError when nobody reads it any more."""
    content = (json.dumps(document) + "\n").encode()
    while content:
        content = content[os.write(1, content) :]
