"""Every command that changes something is in the audit log: before it begins, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from controller.adapters.audit import AuditLog, Entry
from controller.adapters.files.keys import ensure_fleet_key, generate_key
from controller.adapters.secrets import sources
from controller.adapters.store import Store, database_url
from controller.cli.main import main
from controller.lab.actions import Actions
from controller.lab.api import Api
from controller.lab.hosts import Hosts
from controller.lab.resources import Cloud
from controller.model.errors import HostFailed
from controller.model.project import Project
from controller.workflow.fleet import provision
from controller.workflow.fleet.bring_up import BringUp

SERVERS = "ratchet: {servers: {count: 2, prefer: [{type: cx23, location: fsn1}]}}\n"
STATIC_HOST = "all: {hosts: {racks-1: {ansible_host: 127.0.0.1, ansible_port: %d}}}\n"
TOKEN = "t" * 64


class Asked:
    """The cloud's API, as the tests ask it."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._headers = {"Authorization": f"Bearer {TOKEN}"}

    def post(self, path: str, document: dict[str, Any]) -> None:
        requests.post(self._endpoint + path, json=document, headers=self._headers, timeout=10).raise_for_status()

    def get(self, path: str) -> Any:
        return requests.get(self._endpoint + path, headers=self._headers, timeout=10).json()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with the fleet `cloud`, which has no servers yet, and the static fleet `racks`, whose host is down."""
    for name in ("HCLOUD_ENDPOINT", *sources("HCLOUD_TOKEN"), *sources("RATCHET_DATABASE_URL")):
        monkeypatch.delenv(name, raising=False)
    assert main(["init", str(tmp_path / "site"), "--fleet", "cloud"]) == 0
    assert main(["init", str(tmp_path / "site"), "--fleet", "racks", "--static"]) == 0
    project = Project(tmp_path / "site")
    (project.inventory("cloud") / "group_vars/all/ratchet.yml").write_text(SERVERS)
    ensure_fleet_key(project, "racks")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (project.inventory("racks") / "hosts.yml").write_text(STATIC_HOST % port)
    public = generate_key("test")[1]
    project.known_hosts("racks").write_text(f"[127.0.0.1]:{port} {public}\n")
    return project


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """The lab's API, without anything of a machine behind it: its actions do nothing, and succeed."""
    monkeypatch.setattr(
        Actions, "register", lambda actions, command, _: actions._jobs.update({command: lambda _: None})
    )
    monkeypatch.setattr(Hosts, "all", lambda _hosts: {})
    (tmp_path / "cloud").mkdir()
    application = Api(Cloud("audit", tmp_path / "cloud")).application()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("HCLOUD_ENDPOINT", f"{endpoint}/v1")
        monkeypatch.setenv("HCLOUD_TOKEN", TOKEN)
        yield Asked(endpoint)
        # An answer that is held back is waited for by nobody.
        server.should_exit = server.force_exit = True
        thread.join()


def log_of(project: Project) -> AuditLog:
    return AuditLog(project, Store(database_url(project)))


def told(project: Project) -> list[tuple[Any, ...]]:
    entries = log_of(project).entries()
    assert log_of(project).verify().findings == []
    return [(entry["action"], entry["state"], entry.get("began"), entry["fleet"], entry["hosts"]) for entry in entries]


def last(project: Project) -> Entry:
    return log_of(project).entries()[-1]


def run(project: Project, *words: str) -> int:
    return main(["--project", str(project.root), *words])


def test_a_rollback_that_fails_is_in_the_log(project: Project) -> None:
    assert run(project, "rollback", "--fleet", "racks") == 5
    assert told(project) == [
        ("rollback", "begun", None, "racks", ["racks-1"]),
        ("rollback", "failed", 1, "racks", ["racks-1"]),
    ]
    assert log_of(project).entries()[0]["why"] == "to the confirmed baseline"
    assert last(project)["why"].startswith("racks-1: not rolled back: racks-1: ")


def test_a_rollback_to_an_unknown_run_is_in_the_log(project: Project) -> None:
    assert run(project, "rollback", "--fleet", "racks", "--before", "r-1") == 2
    begun, ended = log_of(project).entries()
    assert (begun["why"], ended["state"]) == ("to what run r-1 found", "failed")
    assert ended["why"] == f"{project.runs}: unknown run 'r-1'"


def test_a_run_that_fails_at_its_first_step_is_in_the_log(project: Project) -> None:
    assert run(project, "optimize", "--fleet", "racks", "--experiment", "gzip-level", "--seed", "7") == 3
    assert told(project) == [
        ("optimize", "begun", None, "racks", ["racks-1"]),
        ("optimize", "failed", 1, "racks", ["racks-1"]),
    ]
    begun, ended = log_of(project).entries()
    assert begun["why"] == "first-winner: gzip-level"
    assert begun["evidence"]["seed"] == 7
    assert ended["why"].startswith("failed: 0 trials, kept: nothing; fleet racks: racks-1: unreachable")
    assert ended["evidence"]["ended_run"] == begun["evidence"]["run"]
    assert (ended["evidence"]["status"], ended["evidence"]["kept"]) == ("failed", [])


def test_what_only_looks_is_not_in_the_log(project: Project) -> None:
    run(project, "status", "--fleet", "racks")
    run(project, "history", "--fleet", "racks")
    run(project, "optimize", "--fleet", "racks", "--experiment", "gzip-level", "--dry-run")
    run(project, "audit")
    assert not (project.state / "audit.jsonl").exists()


def test_a_provision_that_the_cloud_refuses_is_in_the_log(project: Project, cloud: Asked) -> None:
    cloud.post("/_lab/faults", {"kind": "error", "path": "/servers", "code": "forbidden"})
    assert run(project, "provision", "--fleet", "cloud") == 2
    assert told(project) == [
        ("provision", "begun", None, "cloud", ["cloud-1", "cloud-2"]),
        ("provision", "failed", 1, "cloud", ["cloud-1", "cloud-2"]),
    ]


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("where", "error", "code"),
    [
        ("_await_port", HostFailed("port 22 does not answer"), 3),
        ("_reach", KeyboardInterrupt(), 130),
        ("set up", HostFailed("ansible-playbook cannot be started"), 3),
        ("set up", KeyboardInterrupt(), 130),
    ],
)
@pytest.mark.usefixtures("project", "cloud")
def test_servers_that_a_provision_has_created_are_in_the_log_however_it_ends(
    where: str, error: BaseException, code: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "set up":
        public = generate_key("test")[1]
        monkeypatch.setattr(BringUp, "_reach", lambda one, host: one._order.known_hosts.trust(host.address, public))
        monkeypatch.setattr(provision, "run_playbook", failing(error))
    else:
        monkeypatch.setattr(BringUp, where, failing(error))
    assert run(project, "provision", "--fleet", "cloud") == code
    assert last(project)["state"] == ("failed" if code == 3 else "interrupted")
    assert last(project)["evidence"] == {"created": ["cloud-1", "cloud-2"]}


@pytest.mark.usefixtures("project", "cloud")
def test_a_provision_is_logged_too_without_the_clouds_token_and_any_private_key(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(BringUp, "_await_port", failing(HostFailed("port 22 does not answer")))
    assert run(project, "provision", "--fleet", "cloud", "-vv") == 3
    kept, shown = (project.state / "log/controller.log").read_text(), capsys.readouterr().err
    for text in (kept, shown):
        assert "POST /v1/servers: 201 in " in text and "DEBUG urllib3" in text
    assert "cloud-1: FAILED: port 22 does not answer" in kept
    key = (project.state / "keys/cloud").read_text().splitlines()
    for secret in (TOKEN.encode(), *(line.encode() for line in key[3:-1]), b"PRIVATE KEY"):
        files = [path for path in project.root.rglob("*") if path.is_file() and secret in path.read_bytes()]
        assert [path for path in files if path.parent.name not in {"keys", "cloud.seeds"}] == []


def test_a_server_whose_creation_was_not_seen_to_its_end_is_in_the_log_as_ordered(
    project: Project, cloud: Asked
) -> None:
    cloud.post("/_lab/faults", {"kind": "action_error", "command": "create_server"})
    assert run(project, "provision", "--fleet", "cloud") == 3
    assert last(project)["evidence"] == {"created": [], "ordered": ["cloud-1", "cloud-2"]}


def test_a_destroy_names_what_it_deletes_before_it_does(project: Project, cloud: Asked) -> None:
    key = {"name": "cloud", "public_key": generate_key("test")[1], "labels": {"ratchet-fleet": "cloud"}}
    cloud.post("/v1/ssh_keys", key)
    assert run(project, "destroy", "--fleet", "cloud", "--yes") == 0
    assert told(project) == [("destroy", "begun", None, "cloud", []), ("destroy", "ok", 1, "cloud", [])]
    assert "SSH key" in log_of(project).entries()[0]["why"]
    assert cloud.get("/v1/ssh_keys")["ssh_keys"] == []


def start(project: Project, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "controller", "--project", str(project.root), *words]
    return subprocess.Popen(command, env=os.environ, stdout=-1, stderr=-1, text=True, stdin=subprocess.DEVNULL)


def wait_for_its_intent(project: Project, running: subprocess.Popen[str]) -> None:
    while not (project.state / "audit.jsonl").exists() or not (project.state / "audit.jsonl").stat().st_size:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_outcome_too(project: Project, cloud: Asked, number: signal.Signals) -> None:
    cloud.post("/_lab/faults", {"kind": "hang", "path": "/servers", "seconds": 20})
    running = start(project, "provision", "--fleet", "cloud")
    wait_for_its_intent(project, running)
    running.send_signal(number)
    _, err = running.communicate(timeout=15)
    assert running.returncode == 130, err
    assert "interrupted" in err
    assert [entry[1] for entry in told(project)] == ["begun", "interrupted"]
    assert last(project)["why"] == "by a signal"


def test_a_kill_is_shown_as_not_ended(project: Project, cloud: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.post("/_lab/faults", {"kind": "hang", "path": "/servers", "seconds": 20})
    running = start(project, "provision", "--fleet", "cloud")
    wait_for_its_intent(project, running)
    running.kill()
    running.communicate()
    capsys.readouterr()
    assert run(project, "audit", "verify") == 0
    out = capsys.readouterr().out
    assert "note: line 1: provision of fleet cloud is not ended: under way, or killed" in out
    assert "the audit log is whole: 1 entries" in out
    assert run(project, "audit") == 0
    assert "1 provision begun (not ended: under way, or its controller was killed)  cloud-1" in capsys.readouterr().out
    assert run(project, "audit", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["not_ended"] == [1]


def test_a_run_that_was_killed_is_ended_by_its_resumption(project: Project) -> None:
    running = start(project, "optimize", "--fleet", "racks", "--experiment", "gzip-level")
    wait_for_its_intent(project, running)
    while not list(project.runs.glob("*/log.jsonl")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    running.kill()
    running.communicate()
    (note,) = log_of(project).verify().notes
    assert "optimize of fleet racks is not ended" in note.what
    assert run(project, "resume") == 3
    assert [entry[:3] for entry in told(project)] == [
        ("optimize", "begun", None),
        ("resume", "begun", None),
        ("resume", "failed", 2),
    ]
    assert log_of(project).verify().notes == []


def unfinished(project: Project, run_id: str, fleet: str) -> None:
    """As a controller leaves it that was killed, or whose workflow can never be gone on with."""
    (project.runs / run_id / "trials/1").mkdir(parents=True)
    settled = {
        "trial": 1, "experiment": "e", "variant": "v", "hosts": ["racks-1"], "verdict": "KEEP",
        "reason": "proven-gain", "objective": "p50", "design": "duet", "effect": None, "confirmed_effect": None,
        "evidence": 128, "threshold": 100, "pairs": 14, "requests": 200, "errors": 0, "seconds": 20,
        "probing_seconds": 12,
    }  # fmt: skip
    (project.runs / run_id / "trials/1/settled.json").write_text(json.dumps(settled))
    Store(database_url(project)).record_run(
        run_id=run_id, fleet=fleet, status="running", started_at="2026-01-01T00:00:00Z", result="{}"
    )


def test_a_run_that_is_given_up_is_sealed_with_what_it_has_and_says_what_could_not_be_verified(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    log_of(project).record(
        at="2026-01-01T00:00:00Z", action="optimize", fleet="racks", hosts=["racks-1"], why="e", state="begun",
        evidence={"run": "r-1"},
    )  # fmt: skip
    unfinished(project, "r-1", "racks")
    assert run(project, "end", "r-2") == 2
    assert "unfinished runs: r-1" in capsys.readouterr().err
    assert run(project, "end", "r-1") == 5
    verdict = json.loads((project.runs / "r-1/verdict.json").read_text())
    assert (verdict["status"], verdict["trials"][0]["verdict"]) == ("unverified", "KEEP")
    assert "ended by hand" in verdict["message"] and "racks-1" in verdict["message"]
    assert [entry[:3] for entry in told(project)] == [
        ("optimize", "begun", None),
        ("end", "begun", None),
        ("end", "failed", 2),
    ]
    assert log_of(project).verify().notes == []
    assert run(project, "resume") == 0 and "nothing is unfinished" in capsys.readouterr().err


def test_a_run_whose_fleet_is_gone_can_be_given_up_and_blocks_no_other(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(project, "r-1", "renamed")
    assert run(project, "resume", "r-1") == 2
    assert "controller end r-1" in capsys.readouterr().err
    assert run(project, "end", "r-1") == 0
    verdict = json.loads((project.runs / "r-1/verdict.json").read_text())
    assert verdict["status"] == "failed" and "fleet renamed is gone" in verdict["message"]
    assert run(project, "runs") == 0


def test_a_bare_resume_tries_each_run_and_tells_each(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    unfinished(project, "r-1", "renamed")
    unfinished(project, "r-2", "racks")
    (project.runs / "r-2/request.json").write_text(
        json.dumps({"run_id": "r-2", "started_at": "2026-01-01T00:00:00Z", "seed": 1, "experiments": []})
    )
    assert run(project, "resume") == 3
    said = capfd.readouterr().err
    assert "resuming r-1" in said and "controller end r-1" in said and "resuming r-2" in said
    assert json.loads((project.runs / "r-2/verdict.json").read_text())["status"] == "failed"


def test_one_entry_is_one_line_whatever_a_host_has_said(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    why = "refused\n2026-11-24T00:00:00Z  root@here  9 commit ok  web-1: kept\x1b[2K"
    log_of(project).record(at="2026-11-24T00:00:00Z", action="commit", fleet="racks", hosts=["racks-1"], why=why)
    capsys.readouterr()
    assert run(project, "audit") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert r"refused\n2026" in line
    assert "\x1b" not in line
