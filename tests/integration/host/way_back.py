"""Shared by the tests of the way back: a variant live under a short lease, and how to see that the baseline is back."""

from __future__ import annotations

import json
import subprocess
import time

from tests.integration.host.conftest import BASELINE_ID, LEASE, PROGRAM, VARIANT_ID, Host

# The promise: back within the lease and so many seconds.
GRACE = 10

# The door of root's program under an audit hook: CPython tells each file that it opens, renames and removes, each
# process that it starts and each signal that it sends, before it does so.
_UNDER_AUDIT = """
import os, shutil, signal, sys
hook, door, *arguments = sys.argv[1:]
exec(hook)
sys.addaudithook(audit)
sys.argv = [door, *arguments]
exec(compile(open(door).read(), door, "exec"))
"""
# At whatever instant kill -9 comes, it comes between two of these.
_KILLED = """
left = %d
changing = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.kill", "subprocess.Popen", "os.posix_spawn"}
def audit(event, told):
    global left
    writes = %r and event == "open" and isinstance(told[2], int) and told[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (event in changing or writes) and "compiled" not in str(told):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def live_by_hand(host: Host, configuration: str = VARIANT_ID, *, lease: int = LEASE) -> float:
    """Make an unconfirmed configuration live, as an operator does; returns when its lease has begun (monotonic)."""
    began = time.monotonic()
    answer = host.ratchet("switch", configuration, "--lease", str(lease))
    assert answer["ok"], answer
    assert host.level() != "level 9\n"
    return began


def by_mark(host: Host) -> set[str]:
    """The marks of the staged files that nginx runs: what every worker that serves and is not leaving carries, by the
    kernel's account."""
    script = """
for pid in $(pgrep -fx 'nginx: worker process *'); do
  grep -q ratchet-shadow /proc/$pid/cgroup || awk '/^Max core file size/ { print $5 }' /proc/$pid/limits
done"""
    return set(host.run(script, check=False).split())


def mark(host: Host, path: str = "/etc/nginx/nginx.conf") -> str:
    """The mark on the first line of a staged file; of what nginx.conf leads to where no other is named."""
    return host.run(f"sed -n '1s/^worker_rlimit_core \\([0-9]*\\);.*/\\1/p' {path}", check=False).strip()


def assert_back(host: Host, began: float, *, lease: int = LEASE) -> None:
    """The baseline is served within lease + 10 s, by every worker's mark, and the host rests on it."""
    limit = lease + GRACE
    host.until(lambda: host.level() == "level 9\n", limit - (time.monotonic() - began))
    host.until(lambda: by_mark(host) == {mark(host)}, max(1.0, limit - (time.monotonic() - began)))
    assert_rests(host)


def assert_rests(host: Host) -> None:
    """On its baseline's own tree, proven, and nothing of ours is still to come."""
    host.until(lambda: host.status()["lease"] is None, 4)
    status = host.status()
    assert status["live"] == status["confirmed"] == BASELINE_ID and status["verified"] and not status["drift"], status
    assert host.run("readlink -f /etc/nginx/nginx.conf").strip() == f"/etc/nginx/ratchet/{BASELINE_ID}/nginx.conf"
    assert host.level() == "level 9\n" and by_mark(host) == {mark(host)}


def under_audit(host: Host, hook: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """One command of root's program, with a function `audit(event, told)` that sees what it does."""
    return subprocess.run(
        host.exec("python3", "-IS", "-c", _UNDER_AUDIT, hook, PROGRAM, *arguments),
        input=stdin, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def killed_at(host: Host, event: int, *arguments: str, written: bool = False) -> bool:
    """Run one command of root's program, killed (-9) before its so-many-th change; `written`: a file that is opened to
    be written is one too. False: the command has come to its end before."""
    done = under_audit(host, _KILLED % (event, written), *arguments)
    if done.returncode == 137:
        return True
    assert json.loads(done.stdout)["ok"], done
    return False


def restart_nginx(host: Host) -> None:
    """nginx as systemd starts it, whoever had started, upgraded or stopped it."""
    host.run("systemctl stop nginx; pkill -KILL -f '^nginx: (master|worker) '; systemctl start nginx")


def start_over(host: Host) -> None:
    """The host as nginx's package leaves it: what a failed test has broken fails no other."""
    host.run(
        "cp --remove-destination /etc/nginx/ratchet/original/nginx.conf /etc/nginx/;"
        "rm -rf /etc/nginx/ratchet /var/lib/ratchet /run/ratchet; systemctl try-restart ratchet-keeper",
        check=False,
    )
    restart_nginx(host)
