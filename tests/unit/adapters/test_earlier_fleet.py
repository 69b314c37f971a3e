"""A fleet's inventory with other kept parameters: everything leads where it did, and nothing of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.adapters.files.earlier_fleet import fleet_with_kept
from controller.adapters.files.kept import kept_file, read_kept
from controller.model.errors import HostFailed
from controller.model.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "inventory/web"
    (folder / "group_vars/all").mkdir(parents=True)
    (folder / "host_vars").mkdir()
    (folder / "hosts.yml").write_text(
        "all: {hosts: {web-1: {ansible_ssh_private_key_file: '{{ inventory_dir }}/../k'}}}"
    )
    (folder / "group_vars/all/nginx.yml").write_text("nginx_gzip: true\n")
    (folder / "host_vars/web-1.yml").write_text("nginx_gzip: false\n")
    (folder / "group_vars/all/zz-kept.yml").write_text("nginx_gzip_comp_level: 4\n")
    (tmp_path / "inventory/k").write_text("a key")
    return Project(tmp_path)


def test_it_is_the_fleet_s_own_but_for_the_kept_parameters(project: Project) -> None:
    before = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    with fleet_with_kept(project, "web", "nginx_gzip_comp_level: 9\n") as name:
        assert project.fleets() == ["web"]
        assert read_kept(project, name) == {"nginx_gzip_comp_level": 9}
        other = project.inventory(name)
        for path in ("hosts.yml", "group_vars/all/nginx.yml", "host_vars/web-1.yml", "../k"):
            assert (other / path).read_bytes() == (project.inventory("web") / path).read_bytes()
    assert {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()} == before


def test_a_fleet_that_has_kept_nothing_yet_can_have_kept_something(project: Project) -> None:
    kept_file(project, "web").unlink()
    with fleet_with_kept(project, "web", "nginx_gzip_comp_level: 9\n") as name:
        assert read_kept(project, name) == {"nginx_gzip_comp_level": 9}
    assert not kept_file(project, "web").exists()


def test_what_a_killed_controller_has_left_goes_with_the_next_one(project: Project) -> None:
    left, other = project.root / "inventory/.kept-of-web.abcdefgh", project.root / "inventory/.kept-of-web-2.abcdefgh"
    (left / "group_vars").mkdir(parents=True)
    other.mkdir()
    with fleet_with_kept(project, "web", ""):
        assert not left.exists() and other.exists()


def test_a_folder_that_cannot_be_written_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", full)
    with pytest.raises(HostFailed, match="No space left"), fleet_with_kept(project, "web", ""):
        pass
    assert project.fleets() == ["web"] and not list((project.root / "inventory").glob(".kept*"))


def test_what_was_kept_is_the_same_in_every_locale(project: Project) -> None:
    program = (
        "import sys; from pathlib import Path; from controller.model.project import Project;"
        "from controller.adapters.files.earlier_fleet import fleet_with_kept\n"
        "from controller.adapters.files.kept import read_kept_text\n"
        "project = Project(Path(sys.argv[1]))\n"
        "with fleet_with_kept(project, 'web', '# \\xe9\\u2028\\n') as name:\n"
        "    assert read_kept_text(project, name) == '# \\xe9\\u2028\\n'\n"
    )
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program, project.root], env=plain, check=True, cwd=Path(__file__).parents[3])
