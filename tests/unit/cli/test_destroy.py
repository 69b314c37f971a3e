"""`destroy` forgets only what it has found and deleted, stops when it is told to, and says what is left.

The cloud here is an HTTP server with as many servers as a test needs; the lab's is used in tests/integration/provision.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.audit import AuditLog
from controller.adapters.files.hosts_edits import write_hosts, written_hosts
from controller.adapters.files.keys import HostSeeds
from controller.adapters.store import Store, database_url
from controller.cli.main import main
from controller.model.project import Project
from controller.workflow.fleet.provision import HOSTS_AT_ONCE
from tests.unit.json_api import JsonHandler

SETTINGS = "ratchet: {servers: {count: 1, prefer: [{type: cx23, location: fsn1}]}}\n"


class _Api:
    """A project's servers, and how long it takes to delete one."""

    def __init__(self) -> None:
        self.servers: dict[int, str] = {}
        self.seconds = 0.0
        self.asked: list[int] = []
        api = self

        class Handler(JsonHandler, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind = self.path.split("?")[0].rpartition("/")[2]
                found = [_server(number, name) for number, name in api.servers.items()] if kind == "servers" else []
                pagination = {"page": 1, "per_page": 500, "previous_page": None, "next_page": None, "last_page": 1}
                self.answer(200, {kind: found, "meta": {"pagination": pagination | {"total_entries": len(found)}}})

            def do_DELETE(self) -> None:
                number = int(self.path.rpartition("/")[2])
                api.asked.append(number)
                time.sleep(api.seconds)
                if api.servers.pop(number, None) is None:
                    error = {"code": "not_found", "message": "server not found", "details": None}
                    return self.answer(404, {"error": error})
                action = {"id": number, "command": "delete_server", "status": "success", "progress": 100}
                return self.answer(200, {"action": action | {"resources": [], "error": None}})

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def environment(self) -> dict[str, str]:
        return {"HCLOUD_ENDPOINT": f"http://127.0.0.1:{self.http.server_port}/v1", "HCLOUD_TOKEN": "x" * 64}


def _address(number: int) -> str:
    return f"192.0.2.{number}"


def _server(number: int, name: str) -> dict[str, Any]:
    ipv4 = {"id": number, "ip": _address(number), "blocked": False, "dns_ptr": ""}
    network = {"ipv4": ipv4, "ipv6": None, "floating_ips": []}
    return {"id": number, "name": name, "status": "running", "labels": {}, "public_net": network}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Api]:
    api = _Api()
    for name, value in api.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    thread = threading.Thread(target=api.http.serve_forever, daemon=True)
    thread.start()
    yield api
    api.http.shutdown()
    api.http.server_close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    assert main(["init", str(tmp_path / "site"), "--fleet", "web"]) == 0
    project = Project(tmp_path / "site")
    (project.inventory("web") / "group_vars/all/ratchet.yml").write_text(SETTINGS)
    return project


def _know(project: Project, *numbers: int) -> None:
    """What provisioning leaves of as many servers."""
    addresses = {f"web-{number}": _address(number) for number in numbers}
    write_hosts(project.inventory("web") / "hosts.yml", "web", addresses, lambda _: None)
    project.known_hosts("web").write_text("".join(f"{one} ssh-ed25519 AAAA\n" for one in addresses.values()))
    HostSeeds(project, "web").create(f"web-{numbers[0]}")
    store = Store(database_url(project))
    for name in addresses:
        store.record_baseline(fleet="web", host=name, configuration="a" * 16, run_id="r-1", recorded_at="2026")


def _known(project: Project) -> dict[str, set[str]]:
    """Where -> the hosts of which something is known."""
    hosts, known_hosts = project.inventory("web") / "hosts.yml", project.known_hosts("web")
    return {
        "hosts.yml": set(written_hosts(hosts)),
        "known_hosts": {f"web-{line.split()[0].rpartition('.')[2]}" for line in known_hosts.read_text().splitlines()}
        if known_hosts.exists()
        else set(),
        "seeds": HostSeeds(project, "web").names(),
        "records": set(Store(database_url(project)).baselines("web")),
    }


def _destroy(project: Project, *words: str) -> int:
    return main(["--project", str(project.root), "destroy", "--fleet", "web", *words])


@pytest.mark.usefixtures("api")
def test_a_token_that_finds_nothing_of_the_fleet_forgets_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    _know(project, 1, 2)
    before = _known(project)
    assert _destroy(project, "--yes") == 2
    message = capsys.readouterr().err
    assert "no server of fleet web, but it is known here: web-1 (192.0.2.1), web-2 (192.0.2.2)" in message
    assert "controller destroy --fleet web --forget" in message
    assert _known(project) == before


@pytest.mark.usefixtures("api")
def test_who_says_that_they_are_gone_is_asked_or_says_yes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    _know(project, 1)
    assert _destroy(project, "--forget") == 2
    assert "--yes --forget" in capsys.readouterr().err
    assert _known(project)["hosts.yml"] == {"web-1"}
    assert _destroy(project, "--forget", "--yes") == 0
    assert not any(_known(project).values())
    assert _destroy(project, "--yes") == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_another_fleet_of_the_same_name_is_not_deleted(
    api: _Api, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    _know(project, 1)
    api.servers = {9: "web-1"}
    assert _destroy(project, "--yes") == 2
    assert "web-1 is at 192.0.2.9, in hosts.yml at 192.0.2.1" in capsys.readouterr().err
    assert api.servers == {9: "web-1"}


def test_what_was_found_is_forgotten_and_the_rest_stays_and_is_named(
    api: _Api, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    _know(project, 1, 2)
    api.servers = {1: "web-1"}
    assert _destroy(project, "--yes") == 0
    out = capsys.readouterr().out
    assert "deleted: web-1. Not in the cloud, and still known here: web-2;" in out
    assert _known(project) == {"hosts.yml": {"web-2"}, "known_hosts": {"web-2"}, "seeds": set(), "records": {"web-2"}}


def _await_deletions(api: _Api, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(api.asked) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_no_deletion_is_begun_and_what_is_left_is_told(
    api: _Api, project: Project, number: signal.Signals
) -> None:
    _know(project, *range(1, 101))
    api.servers = {one: f"web-{one}" for one in range(1, 101)}
    api.seconds = 1.0
    words = [sys.executable, "-m", "controller", "--project", str(project.root), "destroy", "--fleet", "web", "--yes"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | api.environment()) as command:
        _await_deletions(api, HOSTS_AT_ONCE)
        begun = len(api.asked)
        command.send_signal(number)
        _, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert begun <= len(api.asked) <= begun + 1, "one may be on its way to the API"
    deleted = {f"web-{one}" for one in range(1, 101)} - set(api.servers.values())
    assert 0 < len(deleted) == len(api.asked)
    told = err[err.index("stopped: deleted: ") :].partition("; not deleted: ")
    assert set(told[0].removeprefix("stopped: deleted: ").split(", ")) == deleted
    assert set(told[2].split("\n")[0].split(", ")) == set(api.servers.values())
    assert "controller destroy --fleet web goes on" in err
    left = set(api.servers.values())
    assert _known(project) == {"hosts.yml": left, "known_hosts": left, "seeds": {"web-1"} & left, "records": left}
    api.seconds = 0.0
    assert _destroy(project, "--yes") == 0
    assert not any(_known(project).values())


def test_a_second_signal_waits_for_nothing_and_calls_nothing_deleted_whose_end_was_not_seen(
    api: _Api, project: Project
) -> None:
    _know(project, 1, 2)
    api.servers = {1: "web-1", 2: "web-2"}
    api.seconds = 8.0
    words = [sys.executable, "-m", "controller", "--project", str(project.root), "destroy", "--fleet", "web", "--yes"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | api.environment()) as command:
        _await_deletions(api, 2)
        for _ in range(2):
            time.sleep(0.5)
            command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "stopped: being deleted, their end was not seen: web-1, web-2" in err
    assert _known(project)["hosts.yml"] == {"web-1", "web-2"}


def test_a_server_that_is_gone_already_counts_as_deleted(api: _Api, project: Project) -> None:
    _know(project, 1)
    api.servers = {1: "web-1"}
    api.seconds = 1.0
    thread = threading.Thread(target=lambda: _pop_when_asked(api))
    thread.start()
    assert _destroy(project, "--yes") == 0
    thread.join()
    assert not any(_known(project).values())


@pytest.mark.parametrize(
    ("trigger", "unforgotten"),
    [
        ("WHEN OLD.host = 'web-1' BEGIN SELECT RAISE(ABORT, 'not this one')", {"web-1"}),
        ("BEGIN SELECT json('{')", {f"web-{number}" for number in range(1, 7)}),
    ],
)
def test_a_record_that_cannot_be_written_is_told_and_costs_no_other_server_its_own(
    trigger: str, unforgotten: set[str], api: _Api, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    _know(project, *range(1, 7))
    api.servers = {one: f"web-{one}" for one in range(1, 7)}
    api.seconds = 0.3
    database = database_url(project).removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(f"CREATE TRIGGER fails BEFORE DELETE ON ratchet_baselines {trigger}; END")
    assert _destroy(project, "--yes") == 3
    err = capsys.readouterr().err
    assert not api.servers and _known(project)["records"] == unforgotten
    told = err[err.index("deleted, and still known here: ") :].split("\n")[0]
    assert set(told.removeprefix("deleted, and still known here: ").split(", ")) == unforgotten
    assert "it is deleted, and could not be forgotten here: " in err
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TRIGGER fails")
    deleted = AuditLog(project, Store(database_url(project))).entries()[-1]["evidence"]["deleted"]
    assert set(deleted) == {f"web-{number}" for number in range(1, 7)}
    assert "controller destroy --fleet web --forget" in err
    assert _destroy(project, "--yes", "--forget") == 0
    assert not any(_known(project).values())


def _pop_when_asked(api: _Api) -> None:
    _await_deletions(api, 1)
    api.servers.clear()


def test_what_is_deleted_is_forgotten_also_when_nobody_reads_its_progress_any_more(api: _Api, project: Project) -> None:
    _know(project, *range(1, 13))
    api.servers = {one: f"web-{one}" for one in range(1, 13)}
    api.seconds = 0.3
    reader, writer = os.pipe()
    words = [sys.executable, "-m", "controller", "--project", str(project.root), "destroy", "--fleet", "web", "--yes"]
    with subprocess.Popen(words, stderr=writer, stdout=writer, env=os.environ | api.environment()) as command:
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        assert command.wait(60) == 0
    assert not api.servers
    assert not any(_known(project).values())
