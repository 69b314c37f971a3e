"""Progress on stderr: a bar per trial with live effect and evidence, or plain lines when it is not a terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from controller.adapters.files.atomic import append_whole
from controller.model.errors import printable
from controller.model.events import (
    Event,
    Notice,
    PairJudged,
    StepStarted,
    TrialEnded,
    TrialSettled,
    TrialStarted,
)
from controller.model.trial import Judgement, TrialPlan
from controller.report.words import effect_words, reason_words

PLAIN_EVERY_PAIRS = 5

log = logging.getLogger(__name__)

# What cannot be told (a terminal that went away, a full disk, a trial whose start another process has told) ends no
# work. rich answers a pipe that is gone with SystemExit.
NEVER_MIND = contextlib.suppress(Exception, SystemExit)


def _effect(judgement: Judgement) -> str:
    return "  ?  " if judgement.effect is None else f"{judgement.effect.estimate:+.1%}"


def _evidence(judgement: Judgement) -> str:
    return f"effect {_effect(judgement)}  evidence {judgement.evidence:.3g} of {judgement.threshold:.0f}"


class ProgressDisplay:
    """An observer and a context manager around a run."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._rich = self._console.is_terminal and not quiet
        self._progress: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._plans: dict[int, TrialPlan] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> ProgressDisplay:
        if self._rich:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[live]}"),
                console=self._console,
                transient=False,
            )
            with NEVER_MIND:
                self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            with NEVER_MIND:
                self._progress.stop()

    def __call__(self, event: Event) -> None:
        with NEVER_MIND:
            _log(event)
        if self._quiet:
            return
        with self._lock, NEVER_MIND:
            self._show(event)

    def _say(self, text: str) -> None:
        console = self._progress.console if self._progress else self._console
        console.print(printable(text), markup=False)

    def _show(self, event: Event) -> None:
        match event:
            case StepStarted():
                self._say(event.text)
            case Notice():
                place = f"{event.host}: " if event.host else ""
                self._say(f"{'warning' if event.level == 'warning' else 'note'}: {place}{event.text}")
            case TrialStarted():
                self._start_trial(event)
            case PairJudged():
                self._pair(event)
            case TrialEnded():
                result = event.result
                if self._progress is not None and result.trial in self._tasks:
                    self._progress.update(self._tasks[result.trial], completed=_MANY, live="")
                effect = effect_words(result.confirmed_effect or result.effect, result.objective)
                self._say(f"{result.experiment}/{result.variant}: {result.verdict} {effect}: {reason_words(result)}")
            case TrialSettled():
                self._say(f"  {event.text}")

    def _start_trial(self, event: TrialStarted) -> None:
        plan = event.plan
        name = f"{plan.experiment.name}/{plan.variant.name}"
        if plan.number in self._plans:
            return  # another stint of it
        self._plans[plan.number] = plan
        if self._progress is not None:
            description = f"trial {plan.number} of {event.trials_in_run}: {name}"
            self._tasks[plan.number] = self._progress.add_task(description, total=plan.timing.planned_pairs, live="")
        else:
            self._say(f"trial {plan.number} of {event.trials_in_run}: probing {name} on {', '.join(plan.hosts)}")

    def _pair(self, event: PairJudged) -> None:
        judgement = event.judgement
        match event.phase:
            case "trial":
                what, live = f"pair {judgement.pairs}", _evidence(judgement)
            case "live check":
                what, live = f"live check, pair {judgement.pairs}", f"effect {_effect(judgement)}"
            case "soak":
                what, live = f"soak, block {judgement.pairs}", "healthy so far"
        left = f"at most {event.seconds_left_at_most:.0f} s left"
        if self._progress is not None and event.trial in self._tasks:
            judging = event.phase == "trial"
            self._progress.update(
                self._tasks[event.trial],
                completed=judgement.pairs if judging else None,
                live=f"{live if judging else f'{what}: {live}'}  {left}",
            )
        elif judgement.decided:
            self._say(f"  {what}: {live}, {judgement.action if event.phase == 'trial' else _ended(judgement)}")
        elif judgement.pairs % PLAIN_EVERY_PAIRS == 0:
            self._say(f"  {what}: {live}, {judgement.action}, {left}")


def _log(event: Event) -> None:
    match event:
        case StepStarted():
            log.info("%s", event.text)
        case Notice():
            log.log(logging.WARNING if event.level == "warning" else logging.INFO, "%s: %s", event.host, event.text)
        case TrialStarted():
            plan = event.plan
            name, hosts = f"{plan.experiment.name}/{plan.variant.name}", ", ".join(plan.hosts)
            log.info("trial %d: probing %s on %s, seed %d", plan.number, name, hosts, plan.seed)
        case PairJudged():
            said = event.judgement
            what = f"trial {event.trial}, {event.phase}, {event.host}"
            log.debug("%s: pair %d: %s, %s", what, event.number, _evidence(said), said.action)
        case TrialEnded():
            result = event.result
            log.info("trial %d: %s, %s: %s", result.trial, result.verdict, result.reason, result.note)
        case TrialSettled():
            log.info("trial %d: %s", event.trial, event.text)


def _ended(judgement: Judgement) -> str:
    return f"harm: {judgement.note}" if judgement.action == "revert" else "no harm"


# More than any trial's pairs: a finished bar is full.
_MANY = 1_000_000


class EventLog:
    """Appends every event to `log.jsonl`, one JSON document a line. A full disk costs lines, not the run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def write(self, at: str, event: Event) -> None:
        """Never raises: a line that cannot be written is told on stderr, where that can be."""
        with self._lock, NEVER_MIND:
            try:
                append_whole(self._file.fileno(), f'{{"at": "{at}", {_document(event)[1:]}\n'.encode())
            except Exception as error:
                what = error.strerror if isinstance(error, OSError) else error
                print(f"warning: log.jsonl: {what}", file=sys.stderr)

    def close(self) -> None:
        with NEVER_MIND:
            self._file.close()


def _document(event: Event) -> str:
    try:
        return event.model_dump_json()
    except ValueError:
        # A file's name on a host that is not UTF-8: JSON has an escape for it, pydantic has not.
        return json.dumps(event.model_dump(mode="json"))
