"""The controller's half of `ratchet_program`: reads root's programs from the role, and makes one module call."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

FILES = Path(__file__).resolve().parents[1] / "files"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        rooms = {path.name: path.read_text(encoding="utf-8") for path in sorted((FILES / "ratchet_host").glob("*.py"))}
        given = {"rooms": rooms, "programs": programs(), "units": units()}
        result: dict[str, Any] = self._execute_module("ratchet_program", self._task.args | given, task_vars=task_vars)
        return result


def programs() -> dict[str, str]:
    """Text of each program of the role by its name: what stands beside the package and begins as a program does."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(FILES.iterdir()) if path.is_file()}
    return {name: text for name, text in texts.items() if text.startswith("#!")}


def units() -> dict[str, str]:
    """Text of each unit of the role by its name.

    `@TEXT@` stands for the hash of a unit and of the programs that it names: in the environment of its process, it
    tells what that was started from.
    """
    texts = {f"ratchet-{path.name}": path.read_text(encoding="utf-8") for path in sorted(FILES.glob("*.service"))}
    return {name: text.replace("@TEXT@", text_of(text)) for name, text in texts.items()}


def text_of(unit: str) -> str:
    named = [text for name, text in programs().items() if f"/{name}" in unit]
    return hashlib.sha256("".join([unit, *named]).encode()).hexdigest()[:16]
