"""The way back: the confirmed configuration live again, whatever was going on."""

from __future__ import annotations

import contextlib
import syslog

from ratchet_host import paths, system
from ratchet_host.configurations import adopted, confirmed, edited, live, pointed, require_staged
from ratchet_host.edits import heal, keep_edited, put_edits_aside
from ratchet_host.errors import Refused
from ratchet_host.files import point, sync_directory, write_atomically
from ratchet_host.marker import Marker
from ratchet_host.nginx import master, test
from ratchet_host.paths import ORIGINAL, SERVICE, configuration_file, confirmed_link, live_link, ratchet
from ratchet_host.reload import GENERATION_SECONDS
from ratchet_host.shadow_places import stop_shadows
from ratchet_host.switching import RESTORE_SECONDS, run_live
from ratchet_host.system import log


def restore() -> bool:
    """Make the confirmed configuration live, whatever was going on. True when something had to be done.

    What somebody edited meanwhile and is in the way is kept as a copy. Raises Refused when nginx could not be shown to
    run the confirmed configuration; the link points to it then all the same.
    """
    changed = make_confirmed_live()
    with contextlib.suppress(OSError):
        put_edits_aside()
    return changed


def make_confirmed_live() -> bool:
    stop_shadows()
    baseline = confirmed()
    if baseline is None:
        return False
    if Marker.holds(baseline, master()):
        return False
    log(f"restoring {baseline}")
    Marker.clear()
    if live() != baseline:
        point(live_link(), baseline)
    if not adopted():
        adopt()
    if edited(baseline):
        heal(baseline)
    problem = test(live_link() / "nginx.conf", "restore")
    if problem:
        raise Refused(f"nginx refuses the confirmed configuration {baseline}: {problem}")
    free_stopped_master()
    run_live(baseline, patience=RESTORE_SECONDS, strict=False)
    return True


def free_stopped_master() -> None:
    """A master that somebody has stopped (SIGSTOP, a debugger) takes no reload, and its workers would go on serving
    what is not confirmed: kill it with them, so that it is started anew.
    """
    parent = master()
    if parent is not None and parent.stopped:
        log("nginx's master process is stopped; killing nginx to start it with the baseline", syslog.LOG_WARNING)
        system.run("systemctl", "kill", "--signal=KILL", SERVICE)
        parent.wait_until_gone(GENERATION_SECONDS)


def adopt() -> bool:
    """Make /etc/nginx/nginx.conf the link to what is live, with the same content as before; True when it was not."""
    if adopted() and live() is not None and confirmed() is not None:
        return False
    if not adopted():
        configuration = paths.ETC / "nginx.conf"
        if (
            configuration_file(ORIGINAL).exists()
            and configuration.exists()
            and configuration.read_bytes() != configuration_file(ORIGINAL).read_bytes()
        ):
            keep_edited(configuration)
        keep_original()
    for link in (live_link(), confirmed_link()):
        if pointed(link) is None:
            require_staged(ORIGINAL)
            point(link, ORIGINAL)
    if not adopted():
        point(paths.ETC / "nginx.conf", "ratchet/live/nginx.conf")
        log("adopted /etc/nginx/nginx.conf; the file that was there is in ratchet/original/")
    return True


def keep_original() -> None:
    """Keep the distribution's nginx.conf, once, before anything of ours may take its place."""
    kept = configuration_file(ORIGINAL)
    if kept.exists() or adopted():
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, (paths.ETC / "nginx.conf").read_bytes())
    sync_directory(ratchet())
