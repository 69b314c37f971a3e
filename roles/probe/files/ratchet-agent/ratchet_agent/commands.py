"""What can be asked of the agent: run, read, ssh."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
import syslog
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratchet_agent import VERSION
from ratchet_agent.controller_line import Controller
from ratchet_agent.errors import AgentError
from ratchet_agent.loop import Loop
from ratchet_agent.plan import Plan
from ratchet_agent.plan_parsing import parse_plan
from ratchet_agent.record import Record
from ratchet_agent.schedule import Mix
from ratchet_agent.session import Session
from ratchet_agent.trial import Trial

# What a trial may have of the host's memory: twice what its largest block takes.
MEMORY_BYTES = 512 << 20


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Beyond the limit a trial is given up, before live nginx has to go. Raises AgentError("probe").

    It is a soft limit and lifted again, so that what must follow, the way back, is not short of memory.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    least = min(limit for limit in (MEMORY_BYTES, soft, hard) if limit != resource.RLIM_INFINITY)
    exhausted = False
    resource.setrlimit(resource.RLIMIT_AS, (least, hard))
    try:
        yield
    except MemoryError:
        exhausted = True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if exhausted:
        raise AgentError(
            "probe",
            f"the trial needs more than {least >> 20} MiB of the host's memory; plan shorter blocks, or a lower rate",
        )


def software() -> dict[str, str]:
    """Versions of what takes part in a measurement."""
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    told = ""
    if nginx:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            told = subprocess.run([nginx, "-v"], capture_output=True, text=True, timeout=5, check=False).stderr
    found = re.search(r"nginx/(\S+)", told)
    return {
        "version": VERSION,
        "python": platform.python_version(),
        "nginx": found[1] if found else "unknown",
        "kernel": platform.release(),
    }


def command_of(plan: Plan, session_command: str) -> list[str]:
    """The session's command. For a run that has claimed the host it says so, and is refused once the claim is lost."""
    command = session_command.format(lease=plan.lease_seconds, design=plan.session_design, bound=plan.bound_seconds)
    claim = [] if plan.claim is None else ["--run", plan.claim.run, "--generation", str(plan.claim.generation)]
    return [*shlex.split(command), *claim]


def command_run(root: Path, session_command: str, live_log: Path) -> int:
    """Carry out the plan on stdin. Returns the exit code: 0 after an end event, 1 after an error event."""
    controller = Controller(sys.stdin.fileno(), sys.stdout.fileno())
    session: Session | None = None
    record: Record | None = None
    restored: dict[str, Any] | None = None
    try:
        try:
            plan = parse_plan(controller.read_plan())
            loop = Loop()
            controller.listen(loop)
            versions = software()
            record = Record(root, plan, Mix(plan), versions)
            controller.emit("ready", agent=versions)
            session = Session(loop, command_of(plan, session_command), plan.lease_seconds)
            syslog.syslog(f"run {plan.run} trial {plan.trial}: a {plan.design} of up to {len(plan.pairs)} pairs")
            # Not before: the session must not inherit it.
            with limited_memory():
                reason = Trial(plan, loop, controller, session, record, live_log=live_log).run()
        finally:
            # The server comes first; evidence and words after it.
            if session is not None:
                restored = session.end()
        if controller.fault:
            raise AgentError("plan", controller.fault)
        if controller.stop_now:
            syslog.syslog(f"run {plan.run} trial {plan.trial}: ended at once: {controller.stop_now}")
        csv = record.seal()
    except AgentError as error:
        return _fail(controller, error.code, str(error), restored)
    except Exception as error:  # a bug must not hide what became of the server
        syslog.syslog(syslog.LOG_ERR, "".join(traceback.format_exception(error)))
        message = f"the agent failed: {type(error).__name__}: {error} (journalctl -t ratchet-agent)"
        return _fail(controller, "probe", message, restored)
    finally:
        if record is not None:
            record.close()
    controller.emit("end", reason=reason, csv=csv, sidecar=str(record.sidecar), restored=restored)
    syslog.syslog(f"run {plan.run} trial {plan.trial}: {reason}, {csv['rows']} rows, restored: {restored}")
    return 0


def _fail(controller: Controller, code: str, message: str, restored: dict[str, Any] | None) -> int:
    syslog.syslog(syslog.LOG_ERR, f"{code}: {message}; restored: {restored}")
    controller.emit("error", code=code, message=message, restored=restored)
    return 1


RUN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
TRIAL_NUMBER = r"[1-9][0-9]{0,5}"


def command_read(root: Path, run: str, trial: str, which: str) -> int:
    """Write a trial's file to stdout."""
    if not re.fullmatch(RUN_NAME, run) or not re.fullmatch(TRIAL_NUMBER, trial):
        return _refuse(f"no run or trial can be called {run!r:.80}, {trial!r:.80}")
    path = root / run / (f"{trial}.csv.gz" if which == "csv" else f"{trial}.json")
    try:
        with path.open("rb") as source:
            shutil.copyfileobj(source, sys.stdout.buffer, 256 << 10)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Nobody reads on: nothing is to be flushed at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _refuse(f"{path}: {error.strerror}", 1)
    return 0


_ASKED = re.compile(rf"(?:/usr/local/bin/)?ratchet-agent (?:run|read ({RUN_NAME}) ({TRIAL_NUMBER}) (csv|sidecar))")


def command_ssh(root: Path, session_command: str, live_log: Path, asked: str) -> int:
    """The forced command of the probe's key: `run` and `read`, in exactly these words."""
    match = _ASKED.fullmatch(asked)
    if match is None:
        syslog.syslog(syslog.LOG_WARNING, f"refused over ssh: {asked!r:.200}")
        return _refuse("this key allows exactly: ratchet-agent run; ratchet-agent read RUN TRIAL csv|sidecar")
    if match[1] is None:
        return command_run(root, session_command, live_log)
    return command_read(root, match[1], match[2], match[3])


def _refuse(message: str, code: int = 2) -> int:
    sys.stderr.write(f"ratchet-agent: {message}\n")
    return code
