"""Moments of a run, told by its own events."""

from __future__ import annotations

from tests.faults.fault import Moment
from tests.faults.live_run import LiveRun


def step(text: str) -> Moment:
    """A step whose words contain `text` has begun."""
    return Moment(text, lambda run: any(text in event.get("text", "") for event in run.events()))


def event(kind: str) -> Moment:
    return Moment(kind, lambda run: any(event.get("event") == kind for event in run.events()))


def pairs(count: int) -> Moment:
    """`count` pairs were judged."""
    return Moment(f"pair {count}", lambda run: sum(event.get("event") == "pair" for event in run.events()) >= count)


def action(name: str) -> Moment:
    """The judge has said `name` (confirm, keep, revert) after a pair."""
    return Moment(
        f"judged {name}",
        lambda run: any(
            event.get("event") == "pair" and event["judgement"]["action"] == name for event in run.events()
        ),
    )


def seconds(after: float) -> Moment:
    """So many seconds after the start."""
    import time

    return Moment(f"{after:.1f} s", lambda run: time.monotonic() - run.started >= after)


def sealed() -> Moment:
    """verdict.json is written; report and dashboards are not."""

    def reached(run: LiveRun) -> bool:
        return run.run_id is not None and (run.folder / "verdict.json").exists()

    return Moment("sealed", reached)


def commit(state: str) -> Moment:
    """The commit, or rollback, is recorded as being in that state, or beyond it."""
    order = ["going-live", "confirming", "booking", "done", "returned"]
    return Moment(
        f"commit {state}",
        lambda run: (now := run.commit_state()) != "" and order.index(now) >= order.index(state),
    )


START = Moment("start", lambda _run: True)
MID_TRIAL = pairs(3)
SOAK = step("watching its health")
