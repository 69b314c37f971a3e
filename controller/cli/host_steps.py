"""Progress per host on stderr: one live line a host on a terminal, else a plain line a step."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from controller.cli.progress import NEVER_MIND
from controller.model.errors import printable
from controller.workflow.fleet.provision import Progress

log = logging.getLogger(__name__)

MARKS = {"working": "", "ready": "done: ", "failed": "FAILED: "}


class HostSteps:
    """An observer of workflow.provision's Progress, and a context manager around the work. It never raises."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> HostSteps:
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(self._spinner()),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
            )
            self._bars = Bars(*columns, console=self._console)
            with NEVER_MIND:
                self._bars.start()
        return self

    def _spinner(self) -> str:
        """One that the terminal can show: rich's own is Braille."""
        return "dots" if self._console.encoding.lower().startswith("utf") else "line"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            with NEVER_MIND:
                self._bars.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Make room for a question."""
        if self._bars is None:
            yield
            return
        with NEVER_MIND:
            self._bars.stop()
        try:
            yield
        finally:
            with NEVER_MIND:
                self._bars.start()

    def __call__(self, progress: Progress) -> None:
        name = f"{progress.host}: " if progress.host else ""
        text = printable(f"{name}{MARKS[progress.state]}{progress.text}")
        log.log(logging.WARNING if progress.state == "failed" else logging.INFO, "%s", text)
        with self._lock, NEVER_MIND:
            if self._bars is None:
                self._console.print(text, markup=False, soft_wrap=True)
                return
            if progress.text.startswith("note: ") or progress.state == "failed":
                self._bars.console.print(text, markup=False)
            if progress.host not in self._tasks:
                self._tasks[progress.host] = self._bars.add_task(text, total=1)
            completed = 0 if progress.state == "working" else 1
            self._bars.update(self._tasks[progress.host], description=text, completed=completed)
