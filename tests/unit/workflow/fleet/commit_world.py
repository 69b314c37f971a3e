"""A fleet whose hosts answer as `ratchet-host` does, fail when told to, and a controller that can die at any call."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.audit import AuditLog
from controller.adapters.store import Store
from controller.model.commit import Commit
from controller.model.errors import HostFailed, RatchetError, unexpected
from controller.model.events import Event
from controller.model.fleet import Fleet, FleetSettings, Host
from controller.model.project import Project
from controller.workflow.context import RunContext
from controller.workflow.fleet import booking, committing, hosts
from controller.workflow.fleet.claims import Claims

BEFORE, AFTER, LATER = "a" * 16, "b" * 16, "c" * 16
NAMES = ("web-1", "web-2", "web-3")


class Killed(BaseException):
    """The controller's end, at once: nothing of it runs on."""


class World:
    """`calls`: what was asked, in order. `at`: called with each call's number, before it is carried out."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (root / "ansible.cfg").write_text("")
        (root / "inventory/web/group_vars/all").mkdir(parents=True)
        project = Project(root)
        fleet = Fleet(
            name="web",
            inventory=project.inventory("web"),
            settings=FleetSettings(),
            hosts=[
                Host(name=name, address=f"192.0.2.{number}", key_file=root / "k", known_hosts=root / "h")
                for number, name in enumerate(NAMES, 1)
            ],
        )
        self.store = Store(f"sqlite:///{root}/ratchet.db")
        self.events: list[Event] = []
        self.live = dict.fromkeys(NAMES, BEFORE)
        self.confirmed = dict.fromkeys(NAMES, BEFORE)
        self.staged = [BEFORE, AFTER]
        self.down: set[str] = set()
        self.drift: dict[str, dict[str, str]] = {}
        self.refusing: dict[str, set[str]] = {}
        self.calls: list[str] = []
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.at: Callable[[int, str], None] = lambda _number, _call: None
        self.context = RunContext(
            project=project,
            fleet=fleet,
            store=self.store,
            audit=AuditLog(project, self.store),
            observer=self.events.append,
            clock=lambda: dt.datetime.now(dt.UTC),
            claims=Claims(),
        )
        monkeypatch.setattr(committing, "ask_program", self.ask)
        monkeypatch.setattr(hosts, "read_status", self.status)
        monkeypatch.setattr(committing, "on_each_host", self.one_after_another)
        monkeypatch.setattr(hosts, "on_each_host", self.one_after_another)
        monkeypatch.setattr(committing.time, "sleep", self.sleep)
        for module, name in (
            (committing, "record_commit"),
            (booking, "write_kept_text"),
        ):
            monkeypatch.setattr(module, name, self.counted(name, getattr(module, name)))
        monkeypatch.setattr(self.store, "record_baseline", self.counted("record_baseline", self.store.record_baseline))

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.call(name)
            return function(*args, **options)

        return call

    def call(self, what: str) -> None:
        self.calls.append(what)
        self.at(len(self.calls), what)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep()

    @staticmethod
    def one_after_another(members: list[Host], ask: Callable[[Host], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        answers: dict[str, Any] = {}
        failures: dict[str, Any] = {}
        for host in members:
            try:
                answers[host.name] = ask(host)
            except Exception as error:
                failures[host.name] = error if isinstance(error, RatchetError) else unexpected(error, host.name)
        return answers, failures

    def reach(self, host: Host) -> None:
        if host.name in self.down:
            raise HostFailed("unreachable over SSH: Connection refused (tried 3 times)", where=host.name)

    def status(self, host: Host) -> dict[str, Any]:
        self.reach(host)
        return {
            "ok": True, "live": self.live[host.name], "confirmed": self.confirmed[host.name], "verified": True,
            "drift": self.drift.get(host.name), "lease": None, "claim": None, "staged": self.staged,
        }  # fmt: skip

    def ask(self, host: Host, command: str, *words: str, attempts: int = 3) -> dict[str, Any]:
        assert attempts
        self.call(f"{command} {host.name}")
        self.reach(host)
        if command in self.refusing.get(host.name, set()):
            return {"ok": False, "error": f"nginx refuses it on {host.name}"}
        if "--unedited" in words and self.drift.get(host.name):
            return {"ok": False, "error": "edited by hand since the last confirm"}
        if command == "rollback":
            self.live[host.name] = self.confirmed[host.name]
        else:
            self.live[host.name] = words[0]
            if command == "confirm":
                self.confirmed[host.name] = words[0]
        return {"ok": True}

    def lease_ends(self) -> None:
        """What the keeper does on every host where nothing was confirmed."""
        self.live = dict(self.confirmed)

    def commit(self, **changes: Any) -> Commit:
        return Commit(
            commit_id="r-1/1", fleet="web", run_id="r-1", why="the commit of gzip/l4", started_at="2026-01-01",
            before=dict.fromkeys(NAMES, BEFORE), after=dict.fromkeys(NAMES, AFTER), kept_before="",
            kept_after="nginx_gzip_comp_level: 4 # r-1\n", parameters={"nginx_gzip_comp_level": 4}, comment="r-1",
        ).model_copy(update=changes)  # fmt: skip
