"""Bad input ends with one clear message, its place, the next step and exit code 2 (3 for a host); never a traceback."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest

from controller.adapters.files.keys import ensure_fleet_key, generate_key
from controller.adapters.secrets import sources
from controller.cli.main import main
from controller.model.project import Project

SERVERS = "ratchet: {servers: {count: 1, prefer: [{type: cx23, location: fsn1}]}}\n"
STATIC_HOST = "all: {hosts: {web-1: {ansible_host: 127.0.0.1, ansible_port: %d}}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with fleet `cloud`, to be provisioned, and the static fleet `racks`; no token anywhere."""
    for name in ("HCLOUD_ENDPOINT", *sources("HCLOUD_TOKEN"), *sources("RATCHET_DATABASE_URL")):
        monkeypatch.delenv(name, raising=False)
    assert main(["init", str(tmp_path / "site"), "--fleet", "cloud"]) == 0
    assert main(["init", str(tmp_path / "site"), "--fleet", "racks", "--static"]) == 0
    return Project(tmp_path / "site")


def _settings(project: Project, fleet: str) -> Path:
    return project.inventory(fleet) / "group_vars" / "all" / "ratchet.yml"


def _run(project: Project, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["--project", str(project.root), *words])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return code, captured.err


def _static_host(project: Project, port: int, known_hosts: str) -> None:
    ensure_fleet_key(project, "racks")
    (project.inventory("racks") / "hosts.yml").write_text(STATIC_HOST % port)
    project.known_hosts("racks").write_text(known_hosts)


@pytest.mark.parametrize("command", ["provision", "destroy", "optimize", "status"])
def test_an_unknown_fleet(project: Project, capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, message = _run(project, capsys, command, "--fleet", "clout")
    assert code == 2
    assert "unknown fleet clout" in message
    assert "next: did you mean cloud?" in message


def test_an_empty_fleet(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = _run(project, capsys, "optimize", "--fleet", "racks")
    assert code == 2
    assert f"{project.inventory('racks') / 'hosts.yml'}: fleet racks has no hosts" in message


def test_a_fleet_that_was_never_provisioned(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = _run(project, capsys, "optimize", "--fleet", "cloud")
    assert code == 2
    assert "next: controller provision --fleet cloud" in message


def test_a_missing_token(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = _run(project, capsys, "provision", "--fleet", "cloud")
    assert code == 2
    assert "there is no API token" in message
    assert "HCLOUD_TOKEN" in message
    assert not project.key_file("cloud").exists()


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"HCLOUD_TOKEN": "two words"}, "HCLOUD_TOKEN: the API token is empty or holds a blank"),
        (
            {"HCLOUD_TOKEN_FILE": "/nowhere/token"},
            "/nowhere/token: the file that HCLOUD_TOKEN_FILE names cannot be read: No",
        ),
        ({"HCLOUD_TOKEN_COMMAND": "false"}, "HCLOUD_TOKEN_COMMAND: the command ended with 1"),
        ({"HCLOUD_TOKEN_FD": "1"}, "HCLOUD_TOKEN_FD is not a descriptor to read from"),
        ({"HCLOUD_TOKEN_FD": "987"}, "HCLOUD_TOKEN_FD: descriptor 987 cannot be read: Bad file descriptor"),
        ({"HCLOUD_TOKEN_COMMAND": "no-such-command"}, "the command does not work: No such file"),
        ({"HCLOUD_TOKEN_COMMAND": "'"}, "the command does not work"),
        ({"HCLOUD_TOKEN": "secret", "HCLOUD_ENDPOINT": "http://192.0.2.1/v1"}, "over the network in the clear"),
        ({"HCLOUD_TOKEN": "secret", "HCLOUD_ENDPOINT": "cloud"}, "HCLOUD_ENDPOINT is not an address"),
    ],
)
def test_a_token_or_endpoint_that_cannot_be_used_is_told_without_showing_the_token(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    complaint: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, message = _run(project, capsys, "provision", "--fleet", "cloud")
    assert code == 2
    assert complaint in message
    assert "secret" not in message
    assert "two words" not in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ratchet: {servers: {cuont: 1}}\n", "unknown field `ratchet.servers.cuont`"),
        ("ratchet: {servers: [}\n", "is not valid YAML"),
        (SERVERS.replace("count: 1", "count: 0"), "`ratchet.servers.count`: expected greater than or equal to 1"),
        (SERVERS.replace("count: 1", "count: 1, labels: {'a b': c}"), "a b=c is not a label"),
        (SERVERS.replace("count: 1", "count: 1, ssh_sources: [everywhere]"), "`servers.ssh_sources`: 'everywhere'"),
    ],
)
def test_settings_that_cannot_be_meant(
    project: Project, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    _settings(project, "cloud").write_text(text)
    code, message = _run(project, capsys, "provision", "--fleet", "cloud")
    assert code == 2
    assert complaint in message
    assert str(_settings(project, "cloud")) in message
    assert "next: " in message


@pytest.mark.parametrize("words", [["provision"], ["destroy", "--yes"]])
def test_a_static_fleet_has_nothing_to_create_or_delete(
    project: Project, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, message = _run(project, capsys, words[0], "--fleet", "racks", *words[1:])
    assert code == 2
    assert "fleet racks is static" in message
    assert "playbooks/site.yml" in message


def test_nothing_is_deleted_without_a_terminal_or_yes(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HCLOUD_TOKEN", "secret")
    code, message = _run(project, capsys, "destroy", "--fleet", "cloud")
    assert code == 2
    assert "next: controller destroy --fleet cloud --yes" in message


def test_an_unreachable_host(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        _static_host(project, reserved.getsockname()[1], "# none\n")
        code, message = _run(project, capsys, "optimize", "--fleet", "racks", "--experiment", "gzip-level", "--dry-run")
    assert code == 3
    assert "web-1: unreachable over SSH: Connection refused (tried 3 times)" in message
    assert "is the host up" in message


def test_malformed_and_unknown_fields_of_an_experiment(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    _static_host(project, 1, f"x {generate_key('')[1]}")
    meta = project.experiments / "gzip-level" / "meta.json"
    good = meta.read_text()
    for text, complaint in [
        (good.replace('"workload"', '"worklaod"', 1), "unknown field `worklaod`"),
        (good.replace('"name"', "name", 1), "is not valid JSON"),
    ]:
        meta.write_text(text)
        code, message = _run(project, capsys, "optimize", "--fleet", "racks", "--experiment", "gzip-level")
        assert code == 2
        assert complaint in message
        assert f"{meta}:" in message
    code, message = _run(project, capsys, "optimize", "--fleet", "racks", "--experiment", "gzip-lever")
    assert code == 2
    assert "next: did you mean gzip-level?" in message


def test_no_project_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--project", str(tmp_path), "provision", "--fleet", "web"]) == 2
    assert "controller init DIR" in capsys.readouterr().err


HIDDEN = "pw-Hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"postgres//u:{HIDDEN}@h",
        f"postgresql://u:{HIDDEN}@h:port/db",
        f"nodialect://u:{HIDDEN}@h/db",
        f"postgresql://u:{HIDDEN}@127.0.0.1:1/db",
        f"postgresql://u@127.0.0.1:1/db?password={HIDDEN}",
        f"postgresql://u@127.0.0.1:1/db?unheard_of={HIDDEN}",
        f"postgresql://u:{HIDDEN}%2F@127.0.0.1:1/db",
        f"mysql+{HIDDEN}://u@h/db",
        HIDDEN,
        " ",
    ],
)
@pytest.mark.parametrize("variable", ["RATCHET_DATABASE_URL", "RATCHET_DATABASE_URL_COMMAND"])
def test_a_database_that_cannot_be_opened_is_told_without_its_password(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    monkeypatch.setenv(variable, shlex.join(["echo", url]) if variable.endswith("COMMAND") else url)
    code, message = _run(project, capsys, "runs")
    assert code == 2
    assert "database" in message
    assert HIDDEN not in message
