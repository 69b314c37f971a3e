"""`controller end RUN`: whatever became of the run's fleet, and never what somebody is still carrying out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.adapters.audit import AuditLog
from controller.adapters.files.keys import ensure_fleet_key
from controller.adapters.store import FleetHold, FleetLock, Store, database_url
from controller.cli.main import main
from controller.model.project import Project

SINCE = "2026-01-01T00:00:00Z"
HOSTS = "all: {hosts: {web-1: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n"


def made(root: Path, *words: str) -> Project:
    assert main(["init", str(root), "--fleet", "web", *words]) == 0
    return Project(root)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The fleet `web`, which was provisioned once, and its unfinished run r-1."""
    monkeypatch.setenv("RATCHET_DATABASE_URL", f"sqlite:///{tmp_path}/shared.db")
    project = made(tmp_path / "site")
    store_of(project).record_run(run_id="r-1", fleet="web", status="running", started_at=SINCE, result="{}")
    return project


def store_of(project: Project) -> Store:
    return Store(database_url(project))


def end(project: Project, *words: str) -> int:
    return main(["--project", str(project.root), "end", "r-1", *words])


def verdict(project: Project) -> tuple[str, str]:
    document = json.loads((project.runs / "r-1/verdict.json").read_text())
    return document["status"], document["message"]


def told(project: Project) -> list[tuple[str, str]]:
    log = AuditLog(project, store_of(project))
    assert log.verify().findings == []
    return [(entry["action"], entry["state"]) for entry in log.entries()]


@pytest.mark.parametrize("hosts", [None, "all: {hosts: {}}\n", "all: {}\n"])
def test_a_run_whose_fleet_was_destroyed_is_sealed_and_accounted_for(project: Project, hosts: str | None) -> None:
    if hosts is not None:
        (project.inventory("web") / "hosts.yml").write_text(hosts)
    assert end(project) == 0
    status, message = verdict(project)
    assert status == "failed" and "fleet web is gone" in message
    assert store_of(project).unfinished() == []
    assert told(project) == [("end", "begun"), ("end", "ok")]


def test_a_run_whose_hosts_are_known_stays_unfinished_until_what_keeps_them_is_mended(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.inventory("web") / "hosts.yml").write_text(HOSTS)
    (project.inventory("web") / "group_vars/all/ratchet.yml").write_text("ratchet: [\n")
    assert end(project) == 2
    assert "ratchet.yml:2: is not valid YAML" in capsys.readouterr().err
    assert not (project.runs / "r-1/verdict.json").exists() and told(project) == []


def test_a_run_whose_fleet_cannot_be_read_is_sealed_as_unverified(project: Project) -> None:
    (project.inventory("web") / "hosts.yml").write_text("all: [\n")
    assert end(project) == 5
    status, message = verdict(project)
    assert status == "unverified" and "no host was looked at" in message and "next: mend that" in message
    assert told(project) == [("end", "begun"), ("end", "failed")]


@pytest.mark.parametrize("known", ["with hosts", "without hosts", "not at all"])
def test_a_run_that_another_checkout_is_carrying_out_is_left_alone(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], known: str
) -> None:
    other = made(tmp_path / "other", *(["--static"] if known == "with hosts" else []))
    if known == "with hosts":
        ensure_fleet_key(other, "web")
        other.known_hosts("web").write_text("")
        (other.inventory("web") / "hosts.yml").write_text(HOSTS)
    elif known == "not at all":
        other.inventory("web").rename(other.inventory("staging"))
    lost: list[str] = []
    with FleetHold(
        project, store_of(project), "web", run_id="r-1", since=SINCE, lost=lost.append, tell=print, seconds=2.0
    ):
        assert end(other) == 4
        assert "fleet web is held by run r-1" in capsys.readouterr().err
        assert not (other.runs / "r-1").exists()
        assert [row[0] for row in store_of(project).unfinished()] == ["r-1"]
        assert told(other) == [("end", "begun"), ("end", "failed")]
    assert lost == []


def test_a_run_that_is_carried_out_here_is_left_alone(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with FleetLock(project, "web", run_id="r-1", since=SINCE):
        assert end(project) == 4
    assert "fleet web is held by run r-1" in capsys.readouterr().err


def test_a_run_that_was_sealed_while_its_fleet_was_waited_for_is_not_sealed_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entered = FleetHold.__enter__

    def sealed_meanwhile(hold: FleetHold) -> FleetHold:
        hold.store.record_run(run_id="r-1", fleet="web", status="completed", started_at=SINCE, result="{}")
        return entered(hold)

    monkeypatch.setattr(FleetHold, "__enter__", sealed_meanwhile)
    assert end(project) == 2
    assert "no unfinished run r-1" in capsys.readouterr().err
    assert not (project.runs / "r-1").exists()
