"""Tell somebody that a run ended badly: the operator's own command, one line of JSON on its stdin."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from controller.adapters.secrets import is_ours
from controller.model.errors import HostFailed

ALERT_SECONDS = 30.0
TOLD = 300


def alert(command: Sequence[str], document: dict[str, Any], *, seconds: float = ALERT_SECONDS) -> None:
    """Run the command, word by word and without a shell. Raises HostFailed when it fails or takes longer.

    It gets none of our secrets; those of others may be what it tells somebody by.
    """
    environment = {name: value for name, value in os.environ.items() if not is_ours(name)}
    try:
        done = subprocess.run(
            list(command),
            input=json.dumps(document, sort_keys=True).encode() + b"\n",
            capture_output=True,
            timeout=seconds,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise HostFailed(f"the alert command did not end within {seconds:.0f} s", where=command[0]) from None
    except (OSError, ValueError) as error:
        raise HostFailed(f"the alert command cannot be run: {error}", where=command[0]) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-TOLD:] or "it gave no reason"
        raise HostFailed(f"the alert command ended with {done.returncode}: {said}", where=command[0])
