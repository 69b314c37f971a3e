"""Installs the agent: packs its folder into the one file that a host runs, and hands that over to `copy`.

The arguments are those of `copy` but for `src`; check mode, diff and what is told are its as well.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ansible.constants import DEFAULT_LOCAL_TMP
from ansible.plugins.action import ActionBase

AGENT = Path(__file__).resolve().parents[1] / "files" / "ratchet-agent"
SHEBANG = b"#!/usr/bin/python3\n"
UNIX = 3
PLAIN_FILE = 0o100644


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        with tempfile.TemporaryDirectory(dir=DEFAULT_LOCAL_TMP) as folder:
            source = Path(folder) / AGENT.name
            source.write_bytes(pack(AGENT))
            task = self._task.copy()
            task.args = self._task.args | {"src": str(source)}
            copy = self._shared_loader_obj.action_loader.get(
                "ansible.builtin.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            result: dict[str, Any] = copy.run(task_vars=task_vars)
        return result


def pack(folder: Path) -> bytes:
    """An executable zip of the folder's sources. The same sources give the same bytes, so that nothing seems changed.

    It is not compressed: to import from it, Python then needs no zlib.
    """
    packed = io.BytesIO()
    packed.write(SHEBANG)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*.py")):
            # Without a time of its own an entry is of 1980.
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            entry.create_system = UNIX
            entry.external_attr = PLAIN_FILE << 16
            archive.writestr(entry, path.read_bytes())
    return packed.getvalue()
