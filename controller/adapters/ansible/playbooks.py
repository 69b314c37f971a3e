"""Run one playbook and return what each host said, decided on return codes and structured fields only."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from controller.adapters.ansible.environment import ansible_settings
from controller.adapters.ansible.strays import (
    CALL_VARIABLE,
    FLEET_VARIABLE,
    FOLDER_PREFIX,
    end_call,
    end_leftovers,
    new_call,
    remove_left_folders,
)
from controller.adapters.secrets import end_of, is_secret
from controller.model.errors import BadInput, HostFailed, printable
from controller.model.project import Project

log = logging.getLogger(__name__)

HostStatus = Literal["ok", "failed", "unreachable"]


@dataclass
class HostOutcome:
    """One host's part of a playbook run."""

    status: HostStatus = "ok"
    changed: bool = False
    message: str = ""
    task: str = ""
    documents: list[dict[str, Any]] = field(default_factory=list)
    diffs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any] | None:
        """The last answer of `ratchet-host` on this host, if it gave one."""
        return self.documents[-1] if self.documents else None


@dataclass
class PlaybookResult:
    """What a playbook run came to. `rc` is ansible-playbook's own; hosts that were never reached are absent."""

    playbook: str
    rc: int
    seconds: float
    hosts: dict[str, HostOutcome]
    output: str

    @property
    def changed(self) -> bool:
        return any(outcome.changed for outcome in self.hosts.values())

    def failures(self) -> dict[str, str]:
        """Host -> what went wrong, for the hosts that failed or were unreachable."""
        return {name: outcome.message for name, outcome in self.hosts.items() if outcome.status != "ok"}

    def raise_for_failures(self) -> None:
        """Raises HostFailed naming the hosts and their messages unless everything went well."""
        failures = self.failures()
        if failures:
            detail = "; ".join(f"{host}: {message}" for host, message in sorted(failures.items()))
            raise HostFailed(
                f"playbook {self.playbook} failed: {detail}",
                where=", ".join(sorted(failures)),
                next_step=f"mend what it names; by hand: ansible-playbook -i inventory/FLEET playbooks/{self.playbook}",
            )
        if self.rc != 0:
            raise HostFailed(
                f"ansible-playbook {self.playbook} ended with {self.rc}: {self.output.strip()[-800:]}",
                next_step="mend what ansible names above, then run the command again",
            )


class _Collector:
    """Turns runner events into outcomes. Handlers run inline in ansible-runner, so this only sorts and stores."""

    def __init__(self, on_task: Callable[[str], None] | None) -> None:
        self.hosts: dict[str, HostOutcome] = {}
        self.lines: list[str] = []
        self._on_task = on_task

    def __call__(self, event: dict[str, Any]) -> bool:
        if event.get("stdout"):
            self.lines.append(str(event["stdout"]))
        data = event.get("event_data") or {}
        kind = event.get("event", "")
        if kind == "playbook_on_task_start" and self._on_task:
            self._on_task(str(data.get("name", "")))
        if kind in {"runner_on_ok", "runner_on_failed", "runner_on_unreachable"}:
            self._host_event(kind, data)
        return False  # no event files: they would hold every task's arguments

    def _host_event(self, kind: str, data: dict[str, Any]) -> None:
        outcome = self.hosts.setdefault(str(data.get("host")), HostOutcome())
        said = data.get("res") or {}
        result = said if isinstance(said, dict) else {"msg": said}
        outcome.changed = outcome.changed or bool(result.get("changed"))
        if isinstance(result.get("ratchet"), dict):
            outcome.documents.append(result["ratchet"])
        diff = result.get("diff")
        if diff:
            outcome.diffs.extend(one for one in (diff if isinstance(diff, list) else [diff]) if isinstance(one, dict))
        if kind != "runner_on_ok" and not data.get("ignore_errors"):
            outcome.status = "unreachable" if kind == "runner_on_unreachable" else "failed"
            outcome.task = str(data.get("task", ""))
            outcome.message = _message(result)
        log.debug(
            "%s: %s: %s%s in %.1f s%s",
            data.get("host"),
            data.get("task"),
            kind.removeprefix("runner_on_"),
            ", changed" if result.get("changed") else "",
            float(data.get("duration") or 0),
            "" if kind == "runner_on_ok" else f": {end_of(_message(result))}",
        )


def _message(result: dict[str, Any]) -> str:
    """The most telling text of a failed task's result. Bytes that are no UTF-8 come as what no record would take."""
    ratchet = result.get("ratchet")
    if isinstance(ratchet, dict) and ratchet.get("error"):
        return printable(str(ratchet["error"]))
    for key in ("msg", "stderr", "module_stderr", "stdout"):
        text = str(result.get(key) or "").strip()
        if text:
            return printable(text[-1500:])
    return "no message"


def _environment(project: Project, marks: dict[str, str]) -> dict[str, str]:
    # ansible-runner takes over the environment of this process: what is not to go on can only be made empty.
    return {name: "" for name in os.environ if is_secret(name)} | marks | ansible_settings(project)


def _without_environment(private: str) -> Callable[..., None]:
    """For ansible-runner's states: what it was started with, the environment too, is not to stay on the disk."""

    def handle(data: dict[str, Any], **_: Any) -> None:
        if data.get("status") == "running":
            for file in Path(private).glob("artifacts/*/command"):
                file.unlink(missing_ok=True)

    return handle


def _not_run(playbook: str, error: OSError) -> HostFailed:
    return HostFailed(
        f"playbook {playbook} cannot be run here: {error.strerror or error}",
        where=str(error.filename or ""),
        next_step="free the disk of the temporary folder, or name another: TMPDIR=...; then run the command again",
    )


def run_playbook(
    project: Project,
    fleet: str,
    playbook: str,
    *,
    limit: list[str] | None = None,
    extra_vars: dict[str, Any] | None = None,
    check: bool = False,
    inventory: str = "",
    timeout: float = 900,
    cancel: threading.Event | None = None,
    on_task: Callable[[str], None] | None = None,
) -> PlaybookResult:
    """Run `playbooks/<playbook>` on a fleet.

    Args:
        limit: hosts to run on; None means all.
        extra_vars: role parameters; they win over the inventory's.
        check: Ansible's check and diff mode: nothing is changed.
        inventory: another inventory of the fleet's hosts than its own.
        timeout: seconds, after which the local process is ended. Remote work has deadlines of its own.
        cancel: set it to end the run early.
        on_task: called with each task's name as it starts.

    Whoever changes something (not `check`) holds the fleet: what a killed controller has left of it is ended first.

    Raises BadInput when the playbook does not exist, HostFailed when the disk here is full. Failed hosts are in the
    result: see `raise_for_failures`.
    """
    import ansible_runner

    path = project.playbooks / playbook
    if not path.is_file():
        raise BadInput(
            f"no playbook {playbook}", where=str(project.playbooks), next_step="restore playbooks/, or reinstall"
        )
    marks = {FLEET_VARIABLE: f"{project.root}:{fleet}", CALL_VARIABLE: new_call()}
    # Who changes nothing ends nothing: it may not hold the fleet.
    if not check and (ended := end_leftovers(marks[FLEET_VARIABLE])):
        log.warning("ended %d processes of a playbook that a killed controller has left", ended)
    what = f"{playbook}{' --check' if check else ''} on {', '.join(limit) if limit else f'fleet {fleet}'}"
    log.info("%s begins", what)
    collector = _Collector(on_task)
    try:
        remove_left_folders()
        private = tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{marks[CALL_VARIABLE]}-")
    except OSError as error:
        raise _not_run(playbook, error) from None
    started = time.monotonic()
    try:
        if extra_vars:
            # ansible-runner reads them here; an argument, as it would make of them, must not exceed 128 KiB.
            variables = Path(private) / "env/extravars"
            variables.parent.mkdir()
            variables.write_text(json.dumps(extra_vars), encoding="utf-8")
        runner = ansible_runner.run(
            private_data_dir=private,
            # Where it is started by hand: paths in the inventory, such as a key's, may be relative.
            project_dir=str(project.root),
            playbook=str(path),
            inventory=str(project.inventory(inventory or fleet)),
            limit=",".join(limit) if limit else None,
            envvars=_environment(project, marks),
            cmdline="--check --diff" if check else None,
            suppress_env_files=True,
            quiet=True,
            timeout=int(timeout),
            event_handler=collector,
            status_handler=_without_environment(private),
            cancel_callback=(cancel or threading.Event()).is_set,
            rotate_artifacts=1,
        )
        if runner.status in {"canceled", "timeout"}:
            end_call(marks[CALL_VARIABLE])
    except BaseException as error:
        end_call(marks[CALL_VARIABLE])
        if isinstance(error, OSError):
            raise _not_run(playbook, error) from None
        raise
    finally:
        shutil.rmtree(private, ignore_errors=True)
    output = "\n".join(collector.lines)
    if runner.status == "timeout":
        output += f"\nended after {timeout:.0f} s"
    result = PlaybookResult(
        playbook=playbook,
        rc=int(runner.rc if runner.rc is not None else 1),
        seconds=time.monotonic() - started,
        hosts=collector.hosts,
        output=output,
    )
    said = "; ".join(f"{host}: {end_of(message)}" for host, message in sorted(result.failures().items()))
    log.info("%s: %s, exit %d in %.1f s: %s", what, runner.status, result.rc, result.seconds, said or "no host failed")
    return result
