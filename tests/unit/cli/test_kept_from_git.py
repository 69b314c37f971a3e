"""What is private to an operator never reaches git, whatever the repository's own .gitignore says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.adapters.audit import AuditLog
from controller.adapters.files import ignored
from controller.adapters.files.keys import HostSeeds, ensure_fleet_key
from controller.adapters.store import FleetLock, Store, database_url
from controller.cli.main import main
from controller.model.errors import HostFailed
from controller.model.project import Project

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="no git here")


def git(folder: Path, *arguments: str) -> str:
    configured = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "core.autocrlf=false"]
    done = subprocess.run([*configured, *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def added(folder: Path) -> set[str]:
    """What `git add -A` takes."""
    git(folder, "add", "-A")
    return set(git(folder, "ls-files").splitlines())


def repository(folder: Path, rules: bytes | None = None) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    if rules is not None:
        (folder / ".gitignore").write_bytes(rules)
    return folder


def use(project: Project) -> None:
    """What later commands leave there: the fleet's key, a run."""
    ensure_fleet_key(project, "web")
    HostSeeds(project, "web").create("web-1")
    (project.runs / "r-1").mkdir(parents=True, exist_ok=True)
    (project.runs / "r-1" / "plan.json").write_text("{}")


@pytest.mark.parametrize(
    "rules",
    [
        None,
        b"",
        b"*.retry\n",
        b"*.retry",
        b"*.retry\r\n",
        b"\xef\xbb\xbf*.retry\r\n*.bak",
        b"# M\xfcller\n*.retry\n",
        b"!.ratchet\n!.ratchet/\n!/.ratchet/keys\n",
        b"*\n!*/\n!.ratchet/**\n!inventory/**\n!.gitignore\n",
    ],
)
def test_git_takes_no_key_and_no_run(tmp_path: Path, rules: bytes | None) -> None:
    folder = repository(tmp_path / "mine", rules)
    assert main(["init", str(folder)]) == 0
    use(Project(folder))
    taken = added(folder)
    assert not {name for name in taken if name.startswith((".ratchet", "runs"))}
    assert {".gitignore", "inventory/web/group_vars/all/ratchet.yml"} <= taken
    after = (folder / ".gitignore").read_bytes()
    assert after.startswith(rules or b"")
    assert main(["init", str(folder), "--fleet", "other"]) == 0
    assert (folder / ".gitignore").read_bytes() == after


@pytest.mark.parametrize(("rules", "end"), [(b"a\r\nb\r\n", b"\r\n"), (b"a\r\nb", b"\r\n"), (b"a\nb", b"\n")])
def test_what_is_added_has_the_files_own_line_ends(tmp_path: Path, rules: bytes, end: bytes) -> None:
    folder = repository(tmp_path / "mine", rules)
    main(["init", str(folder)])
    lines = (folder / ".gitignore").read_bytes().removeprefix(b"a\r\n").splitlines(keepends=True)
    assert {line[len(line.rstrip()) :] for line in lines if line.rstrip() != b"a"} == {end}
    assert b"b" + end in lines


def test_what_was_added_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = repository(tmp_path / "mine", b".ansible\n/roles/\n")
    main(["init", str(folder)])
    assert f"added to {folder}/.gitignore: .ratchet/, /runs/, /playbooks" in capsys.readouterr().out


def test_an_operator_who_wants_runs_in_git_has_them(tmp_path: Path) -> None:
    folder = repository(tmp_path / "mine", b"!runs/\n")
    main(["init", str(folder)])
    use(Project(folder))
    taken = added(folder)
    assert "runs/r-1/plan.json" in taken
    assert not {name for name in taken if name.startswith(".ratchet")}


def test_own_playbooks_and_roles_stay_in_git(tmp_path: Path) -> None:
    folder = repository(tmp_path / "mine", b"*.retry\n")
    (folder / "ansible.cfg").write_text("[defaults]\nroles_path = roles\n")
    (folder / "inventory").mkdir()
    (folder / "roles/common").mkdir(parents=True)
    (folder / "roles/common/main.yml").write_text("[]\n")
    (folder / "shared").mkdir()
    (folder / "shared/site.yml").write_text("[]\n")
    (folder / "playbooks").symlink_to("shared")
    main(["init", str(folder)])
    assert {"roles/common/main.yml", "playbooks"} <= added(folder)


def _link(folder: Path) -> None:
    (folder / "rules").write_text("*.retry\n")
    (folder / ".gitignore").symlink_to("rules")


def _dangling(folder: Path) -> None:
    (folder / ".gitignore").symlink_to("nowhere")


def _folder(folder: Path) -> None:
    (folder / ".gitignore").mkdir()


@pytest.mark.parametrize(("place", "what"), [(_link, "is a link"), (_dangling, "is a link"), (_folder, "is no file")])
def test_a_gitignore_that_cannot_be_added_to_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: Callable[[Path], None], what: str
) -> None:
    folder = repository(tmp_path / "mine")
    (folder / "ansible.cfg").touch()
    (folder / "inventory").mkdir()
    place(folder)
    assert main(["init", str(folder)]) == 0
    said = capsys.readouterr().err
    assert f"note: {folder}/.gitignore: {what}" in said
    assert "see to it that git ignores .ratchet/, /runs/" in said
    use(Project(folder))
    assert not {name for name in added(folder) if name.startswith(".ratchet")}


def test_a_read_only_gitignore_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path / "mine", b"*.retry\n")
    # Root may write everything.
    monkeypatch.setattr(ignored.os, "access", lambda *_: False)
    assert main(["init", str(folder)]) == 0
    assert ".gitignore: is read-only" in capsys.readouterr().err
    assert (folder / ".gitignore").read_bytes() == b"*.retry\n"


def _key(project: Project) -> None:
    ensure_fleet_key(project, "web")


def _seed(project: Project) -> None:
    HostSeeds(project, "web").create("web-1")


def _database(project: Project) -> None:
    Store(database_url(project)).close()


def _lock(project: Project) -> None:
    with FleetLock(project, "web", run_id="r-1", since="now"):
        pass


def _audit(project: Project) -> None:
    log = AuditLog(project, Store("sqlite://"))
    log.record(at="2026-01-01T00:00:00Z", action="commit", fleet="web", hosts=["web-1"], why="test")


@pytest.mark.parametrize("first", [_key, _seed, _database, _lock, _audit])
@pytest.mark.parametrize("there", [False, True])
def test_whatever_comes_first_into_the_state_folder_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Callable[[Project], None], there: bool
) -> None:
    monkeypatch.delenv("RATCHET_DATABASE_URL", raising=False)
    folder = repository(tmp_path / "mine", b"!.ratchet\n")
    project = Project(folder)
    if there:  # as an earlier version has left it
        project.state.mkdir(mode=0o700)
    first(project)
    assert added(folder) == {".gitignore"}
    folders = [project.state, *(path for path in project.state.rglob("*") if path.is_dir())]
    assert {oct(path.stat().st_mode & 0o777) for path in folders} == {"0o700"}


def test_a_file_in_the_folders_place_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = repository(tmp_path / "mine")
    (folder / ".ratchet").write_text("mine")
    assert main(["init", str(folder)]) == 2
    assert f"{folder}/.ratchet: is no folder" in capsys.readouterr().err


def test_no_key_is_made_that_git_would_take(tmp_path: Path) -> None:
    project = Project(repository(tmp_path / "mine"))
    (project.state / ".gitignore").mkdir(parents=True)
    with pytest.raises(HostFailed, match=r"cannot be written: Is a directory"):
        ensure_fleet_key(project, "web")
    assert not project.key_file("web").exists()
    (project.state / ".gitignore").rmdir()
    (project.root / "rules").write_text("*\n")
    (project.state / ".gitignore").symlink_to("../rules")
    ensure_fleet_key(project, "web")
    assert not {name for name in added(project.root) if name.startswith(".ratchet")}


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen here")
def test_the_key_of_a_static_fleet_is_made_as_its_hosts_file_says(tmp_path: Path) -> None:
    folder = repository(tmp_path / "mine")
    main(["init", str(folder), "--static"])
    (line,) = re.findall(r"# +(ssh-keygen .*)", (folder / "inventory/web/hosts.yml").read_text())
    subprocess.run(shlex.split(line), cwd=folder, check=True, capture_output=True, timeout=30)
    _, generated = ensure_fleet_key(Project(folder), "web")
    assert not generated
    assert not {name for name in added(folder) if name.startswith(".ratchet")}
