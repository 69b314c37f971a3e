"""What the root-owned program reads of processes in /proc, while they come and go."""

from __future__ import annotations

import subprocess
import sys
import time

from ratchet_host.processes import child_pids, children, process

# Starts children that end at once, and among them one that stays; tells its number; ends it when told to go on.
COMING_AND_GOING = """
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reaped as they end
def spawn(seconds):
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        os._exit(0)
    return pid
while True:
    for _ in range(12):
        spawn(0)
    staying = spawn(30)
    print(staying, flush=True)
    sys.stdin.readline()
    os.kill(staying, signal.SIGKILL)
"""
ROUNDS = 400


def test_a_child_that_lives_is_told_however_many_others_end_meanwhile() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMING_AND_GOING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        told = process(parent.pid)
        assert told is not None
        try:
            for _ in range(ROUNDS):
                staying = int(parent.stdout.readline())
                until = time.monotonic() + 0.005
                while time.monotonic() < until:
                    assert staying in child_pids(told)
                assert staying in {child.pid for child in children(told)}
                parent.stdin.write("\n")
                parent.stdin.flush()
        finally:
            parent.kill()
    assert children(told) == set()
