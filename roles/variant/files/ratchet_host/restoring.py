"""The way back: the confirmed configuration live again, whatever was going on. The keeper's program goes it."""

from __future__ import annotations

import contextlib
import syslog

from ratchet_host import paths, system
from ratchet_host.configurations import adopted, by_copy, confirmed, edited, live, pointed, require_staged
from ratchet_host.edits import heal, keep_edited, put_edits_aside, read_tree, remake, take_from_keeper, write_record
from ratchet_host.errors import Refused, explain
from ratchet_host.files import point, sync_directory, write_atomically
from ratchet_host.instance import Live, master, verified, wait_verified
from ratchet_host.marks import mark_in
from ratchet_host.nginx import test
from ratchet_host.paths import (
    KEEPER,
    LIVE_TARGET,
    ORIGINAL,
    configuration_file,
    confirmed_link,
    copy_file,
    live_link,
    ratchet,
)
from ratchet_host.shadow_places import stop_shadows
from ratchet_host.switching import run_live
from ratchet_host.system import log

# It waits 4 s for each of two files, and 10 s for a start.
BACK_SECONDS = 60.0


def restore(*, everything: bool = False) -> bool:
    """Make the confirmed configuration live, whatever was going on. True when something had to be done.

    `everything`: also what somebody else has put live, and an nginx that was stopped; else only what Ratchet has.

    What somebody edited meanwhile and is in the way is kept as a copy. Raises Refused when nginx does not show the
    confirmed configuration; what it would start with is that all the same.
    """
    try:
        return make_confirmed_live(everything=everything)
    finally:
        # What only cleans up comes after, and is in nobody's way.
        stop_shadows()
        with contextlib.suppress(OSError, Refused):
            take_from_keeper()
            put_edits_aside()


def make_confirmed_live(*, everything: bool) -> bool:
    baseline = confirmed()
    if baseline is None:
        return False
    if not everything and somebody_elses():
        raise Refused("/etc/nginx/nginx.conf was replaced by hand, and nginx runs it: it is left as it is")
    try:
        if edited(baseline):
            heal(baseline)
        remake(baseline)
    except (Refused, OSError) as error:
        log(f"the file of {baseline} stays as it is: {explain(error)}", syslog.LOG_WARNING)
    if live() == baseline and adopted() and verified():
        return False
    log(f"restoring {baseline}")
    code, why = system.run(KEEPER, "back", *(["all"] if everything else []), timeout=BACK_SECONDS)
    if code or not wait_verified():
        shown = "its workers do not show it" if master() else "nginx does not run, and will start with it"
        raise Refused(f"the confirmed configuration {baseline} is not back: {why or shown}")
    if by_copy():
        with contextlib.suppress(Refused, OSError):
            problem = test(configuration_file(baseline), "restore") or "as its error log says"
            log(f"{baseline} is live by its copy; nginx refuses its own files: {problem}", syslog.LOG_WARNING)
    return True


def somebody_elses() -> bool:
    """Whether nothing of ours is live any more: what nginx would start with, and what it runs, has no mark."""
    found = Live()
    replaced = not adopted() and not mark_in(paths.ETC / "nginx.conf")
    return replaced and bool(found.workers) and not any(found.workers.values())


def leave_copy() -> bool:
    """From the baseline's copy to its own files, where nginx takes them again. True when it was so."""
    baseline = confirmed()
    if baseline is None or not by_copy() or test(configuration_file(baseline), "restore"):
        return False
    try:
        run_live(baseline, patience=2, strict=False)
    except Refused as refused:
        # It passes the test, and a running nginx does not change to it: only a restart would.
        point(paths.ETC / "nginx.conf", str(copy_file(baseline)))
        log(f"{baseline} stays live by its copy: {refused}", syslog.LOG_WARNING)
        return False
    return True


def find_baseline() -> bool:
    """Point `confirmed` to what was recorded, where somebody has removed the link. True when it was so.

    Of two records the older one is the baseline's: the link is moved last.
    """
    if confirmed() is not None:
        return False
    records = sorted(paths.VAR.glob("confirmed-*.json"), key=lambda record: record.stat().st_mtime)
    if not records:
        return False
    point(confirmed_link(), records[0].stem.removeprefix("confirmed-"))
    log(f"the link to the baseline was gone; by its record it is {confirmed()}", syslog.LOG_WARNING)
    return True


def adopt() -> bool:
    """Make /etc/nginx/nginx.conf the link to what is live, with the same content as before; True when it was not."""
    if adopted() and live() is not None and confirmed() is not None:
        return False
    configuration = paths.ETC / "nginx.conf"
    if not adopted() and confirmed() is not None and configuration.is_file():
        keep_edited(configuration)
    keep_original()
    if confirmed() is None:
        require_staged(ORIGINAL)
        write_record(ORIGINAL, read_tree(ORIGINAL))
        point(confirmed_link(), ORIGINAL)
    if pointed(live_link()) is None:
        point(live_link(), confirmed() or ORIGINAL)
    if not adopted():
        point(configuration, LIVE_TARGET)
        log("adopted /etc/nginx/nginx.conf; the file that was there is in ratchet/original/")
    return True


def keep_original() -> None:
    """Keep the distribution's nginx.conf as it is now, before anything of ours first takes its place."""
    kept, configuration = configuration_file(ORIGINAL), paths.ETC / "nginx.conf"
    if adopted() or confirmed() is not None:
        return
    content = configuration.read_bytes()
    if kept.exists() and kept.read_bytes() == content:
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, content, like=configuration)
    sync_directory(ratchet())
