"""`confirm`, `switch` and `rollback`: the commands that change what is live."""

from __future__ import annotations

from ratchet_host.configurations import adopted, confirmed, edited, live, require_staged, shown
from ratchet_host.drift import drift
from ratchet_host.edits import heal, put_edits_aside, tell_edits, write_record
from ratchet_host.errors import Refused
from ratchet_host.files import point
from ratchet_host.lease import arm, disarm
from ratchet_host.locks import Lock, changing, refuse_during_session
from ratchet_host.marker import Marker
from ratchet_host.nginx import master, test
from ratchet_host.paths import CONFIRM_LEASE, configuration_file, confirmed_link
from ratchet_host.restoring import adopt, restore
from ratchet_host.switching import switch
from ratchet_host.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make_baseline(identity: str) -> float:
    """Under a lease that is armed: switch, and only then move `confirmed`; returns seconds the switch took.

    Raises Refused or OSError with the old baseline live.
    """
    try:
        seconds = switch(identity, patience=5, strict=False)
        write_record(identity)
        if confirmed() != identity:
            point(confirmed_link(), identity)
    except (Refused, OSError):
        restore()
        disarm()
        raise
    disarm()
    return seconds


def command_confirm(identity: str) -> dict[str, Any]:
    refuse_during_session()
    with changing():
        path = configuration_file(identity)
        differences = drift()
        healed = identity in {live(), confirmed()} and edited(identity)
        if healed:
            heal(identity)
        require_staged(identity)
        problem = test(path, identity)
        if problem:
            raise Refused(f"nginx refuses {identity}: {problem}")
        before = confirmed()
        seconds = 0.0
        changed = healed or before != identity or live() != identity
        if adopted() and Marker.holds(identity, master()) and before == identity and drift() is None:
            disarm()
        else:
            arm(CONFIRM_LEASE)
            changed = adopt() or changed
            seconds = make_baseline(identity)
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


def command_switch(identity: str, lease: int) -> dict[str, Any]:
    """For people: the configuration stays for the lease, unless it is confirmed before."""
    refuse_during_session()
    with changing():
        if not adopted() or confirmed() is None:
            raise Refused(
                "nothing is confirmed on this host yet, so there is no way back; confirm a configuration first"
            )
        require_staged(identity)
        problem = test(configuration_file(identity), identity)
        if problem:
            raise Refused(f"nginx refuses {identity}: {problem}")
        changed = not Marker.holds(identity, master())
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


def command_rollback(identity: str | None) -> dict[str, Any]:
    session = Lock("session.lock")
    session.wrest(grace=8)
    try:
        with changing():
            if confirmed() is None:
                raise Refused("nothing is confirmed on this host yet; there is nothing to roll back to")
            before = (live(), confirmed())
            changed = adopt()
            baseline = confirmed()
            if baseline is not None and edited(baseline):
                heal(baseline)
                changed = True
            if identity is not None and identity != confirmed():
                require_staged(identity)
                problem = test(configuration_file(identity), identity)
                if problem:
                    raise Refused(f"nginx refuses {identity}: {problem}")
                arm(CONFIRM_LEASE)
                make_baseline(identity)
                changed = True
            restored = restore()
            disarm()
            changed = changed or before != (live(), confirmed())
            saved = tell_edits()
            difference = drift()
            if restored or changed:
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
