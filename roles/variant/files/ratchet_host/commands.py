"""`confirm`, `switch` and `rollback`: the commands that change what is live."""

from __future__ import annotations

import contextlib

from ratchet_host.claim import Fence
from ratchet_host.configurations import adopted, confirmed, edited, live, require_staged, shown, text_of
from ratchet_host.drift import drift
from ratchet_host.edits import (
    forget_records,
    heal,
    put_edits_aside,
    read_tree,
    remark,
    tell_edits,
    write_record,
)
from ratchet_host.errors import Refused
from ratchet_host.files import point
from ratchet_host.instance import master, require_marks, running, verified
from ratchet_host.lease import arm, disarm, require_lease
from ratchet_host.locks import Lock, changing, refuse_during_session
from ratchet_host.nginx import test
from ratchet_host.paths import CONFIRM_LEASE, ORIGINAL, configuration_file, confirmed_link
from ratchet_host.restoring import adopt, find_baseline, leave_copy, restore
from ratchet_host.switching import switch
from ratchet_host.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make_baseline(identity: str, fence: Fence) -> float:
    """Under a lease that is armed: switch, and only then move `confirmed`; returns seconds the switch took.

    Raises Refused or OSError with the old baseline live.
    """

    def hold() -> None:
        """A call that was held up meanwhile has lost the host, and the keeper has gone back."""
        require_lease()
        fence.check()

    try:
        if master() is None:
            # Somebody has stopped it; who deploys wants it to run.
            restore(everything=True)
        if identity != ORIGINAL and running() == identity:
            # Nothing but a new mark shows that nginx has read it once more, with what it includes now.
            remark(identity, text_of(identity))
        # What is edited from here on nginx may not have read: it is no part of the baseline.
        tree = read_tree(identity)
        seconds = switch(identity, patience=5, strict=False, last=hold)
        write_record(identity, tree)
        try:
            point(confirmed_link(), identity, last=hold)
        except FileNotFoundError:
            # The keeper takes away what is renamed here when it goes back.
            raise Refused(f"held up beyond its lease: the keeper is back, {identity} is not confirmed") from None
    except (Refused, OSError):
        restore()
        disarm()
        raise
    disarm()
    with contextlib.suppress(OSError):
        forget_records(identity)
    return seconds


def require_accepted(identity: str) -> None:
    """Raises Refused unless it is staged, whole, and nginx takes it."""
    require_staged(identity)
    problem = test(configuration_file(identity), identity)
    if problem:
        raise Refused(f"nginx refuses {identity}: {problem}")


def command_confirm(identity: str, fence: Fence, *, unedited: bool = False) -> dict[str, Any]:
    """`unedited`: edits by hand are not made part of the baseline; where there are any, it is refused."""
    with changing():
        refuse_during_session()
        fence.check()
        differences = drift()
        if unedited and differences:
            raise Refused("edited by hand since the last confirm: " + ", ".join(differences))
        healed = identity in {live(), confirmed()} and edited(identity)
        if healed:
            heal(identity)
        require_accepted(identity)
        before = confirmed()
        seconds = 0.0
        changed = healed or before != identity or live() != identity
        if adopted() and before == live() == identity and verified() and drift() is None:
            disarm()
        else:
            arm(CONFIRM_LEASE)
            changed = adopt() or changed
            seconds = make_baseline(identity, fence)
            log(f"confirmed {identity} (before: {before})")
        put_edits_aside()
        saved = tell_edits()
        difference = drift()
    document: dict[str, Any] = {
        "ok": True,
        "changed": changed,
        "live": shown(live()),
        "confirmed": shown(confirmed()),
        "previous": shown(before),
        "drift": difference,
        "adopted": differences,
        "saved": saved,
        "seconds": round(seconds, 3),
    }
    return document


def command_switch(identity: str, lease: int, fence: Fence) -> dict[str, Any]:
    """For people: the configuration stays for the lease, unless it is confirmed before."""
    with changing():
        refuse_during_session()
        fence.check()
        if not adopted() or confirmed() is None:
            raise Refused(
                "nothing is confirmed on this host yet, so there is no way back; confirm a configuration first"
            )
        require_accepted(identity)
        require_marks()
        changed = not (live() == identity and verified())
        if identity != confirmed():
            arm(lease)
        try:
            seconds = switch(identity) if changed else 0.0
        except (Refused, OSError):
            restore()
            disarm()
            raise
        if identity == confirmed():
            disarm()
        log(f"switched to {identity}")
    return {
        "ok": True,
        "changed": changed,
        "live": shown(live()),
        "confirmed": shown(confirmed()),
        "lease_seconds": None if identity == confirmed() else lease,
        "seconds": round(seconds, 3),
    }


def command_rollback(identity: str | None, fence: Fence) -> dict[str, Any]:
    # Before anything is ended: one that comes too late has no word here.
    fence.check()
    session = Lock("session.lock")
    session.wrest(grace=8)
    try:
        with changing():
            fence.check()
            found = find_baseline()
            if confirmed() is None:
                raise Refused("nothing is confirmed on this host yet; there is nothing to roll back to")
            before = (live(), confirmed())
            changed = found
            if identity is not None and identity != confirmed():
                require_accepted(identity)
                arm(CONFIRM_LEASE)
                adopt()
                make_baseline(identity, fence)
                changed = True
            changed = restore(everything=True) or changed
            disarm()
            changed = leave_copy() or changed or before != (live(), confirmed())
            saved = tell_edits()
            difference = drift()
            if changed:
                log(f"rolled back to {confirmed()}")
    finally:
        session.free()
    return {
        "ok": True,
        "changed": changed,
        "live": shown(live()),
        "confirmed": shown(confirmed()),
        "drift": difference,
        "saved": saved,
        "verified": True,
    }
