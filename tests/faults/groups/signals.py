"""The operator stops a run: Ctrl-C and SIGTERM in every phase, once and twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

from tests.faults import moments
from tests.faults.fault import AT_ONCE, INTERRUPTED, Fault, Moment, Scene

# What a host has confirmed, or what is being sealed, is brought to its end; a commit that none has confirmed goes back.
LATE = {"committing": frozenset({0, INTERRUPTED}), "refreshing the dashboards": frozenset({0})}
PHASES: list[tuple[Moment, str]] = [
    (moments.step("checking the hosts"), "long"),
    (moments.step("staging"), "long"),
    (moments.MID_TRIAL, "long"),
    (moments.MID_TRIAL, "long-duet"),
    (moments.step("checking on the live instance"), "keep"),
    (moments.SOAK, "keep"),
    (moments.step("committing"), "keep"),
    (moments.step("refreshing the dashboards"), "keep"),
]


def sent(number: signal.Signals, times: int) -> Callable[[Scene], None]:
    def send(scene: Scene) -> None:
        for _ in range(times):
            scene.run.ask_to_stop(number)
            time.sleep(0.3)

    return send


def faults() -> Iterator[Fault]:
    for phase, (moment, experiment) in enumerate(PHASES, 1):
        half = (phase + 1) // 2
        late = moment.name in LATE
        for number in (signal.SIGINT, signal.SIGTERM):
            for times in (1, 2):
                yield Fault(
                    name=f"{number.name} {'twice' if times == 2 else 'once'}, in every phase", group=f"signals-{half}",
                    moment=moment, inject=sent(number, times), experiment=experiment,
                    exits=LATE.get(moment.name, frozenset({INTERRUPTED})),
                    says="putting the baseline back|is finished first", seconds=None if late else AT_ONCE + 5,
                )  # fmt: skip
