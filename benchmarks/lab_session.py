"""A lab for the length of a `with` block: tests, benchmarks and molecule use it; nothing of it stays behind."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from controller.lab.daemon import Access, Lab


class LabSession:
    """Boots the lab `name`, and deletes all of it at the end.

    Args:
        name: small letters, digits and dashes; a name of its own lets several labs live side by side.
        images: which images must be ready before it begins (default: all).
        say: called with one line of progress at a time.
    """

    def __init__(
        self, name: str, *, images: list[str] | None = None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name = name
        self._images = images
        self._say = say
        self._folder = tempfile.TemporaryDirectory(prefix=f"ratchet-lab-{name}-")
        self.lab = Lab(name, Path(self._folder.name))
        self._access: Access | None = None

    def __enter__(self) -> LabSession:
        # What an interrupted session of this name may have left.
        self.lab.down()
        self._access = self.lab.up(images=self._images, say=self._say)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.lab.down()
        finally:
            self._folder.cleanup()

    @property
    def access(self) -> Access:
        if self._access is None:
            raise RuntimeError("a LabSession is used in a `with` block")
        return self._access

    @property
    def endpoint(self) -> str:
        return self.access.endpoint

    @property
    def token(self) -> str:
        return self.access.token

    def environment(self) -> dict[str, str]:
        """HCLOUD_ENDPOINT and HCLOUD_TOKEN."""
        return self.access.environment()

    def restart_api(self, *, kill: bool = False) -> None:
        """End the API (`kill`: without warning) and start it again on the same port."""
        self.lab.stop_api(kill=kill)
        self._access = self.lab.up(images=[], say=self._say)

    def fault(self, kind: str, **fields: Any) -> None:
        """Order a failure: see controller/lab/faults.py Fault."""
        self._post("faults", {"kind": kind, **fields})

    def clear_faults(self) -> None:
        self._ask("DELETE", "faults")

    def _post(self, path: str, document: dict[str, Any]) -> None:
        self._ask("POST", path, json.dumps(document).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> None:
        address = self.endpoint.removesuffix("/v1") + f"/_lab/{path}"
        request = urllib.request.Request(  # noqa: S310 - the lab's own address
            address, data=body, method=method, headers={"Authorization": f"Bearer {self.token}"}
        )
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
