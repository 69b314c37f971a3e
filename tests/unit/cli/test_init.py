"""`controller init` writes a folder from which the other commands work, and never overwrites."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.adapters.files.experiments import load_experiments
from controller.adapters.files.fleet import load_settings
from controller.adapters.files.parameters import check_parameters
from controller.cli.main import main
from controller.model.project import Project

CHECKOUT = Path(__file__).parents[3]


def _contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): path.read_bytes() for path in paths}


def test_what_it_writes_is_a_project_with_a_fleet_and_an_experiment(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "site"), "--fleet", "web-eu"]) == 0
    project = Project.find(tmp_path / "site" / "experiments")
    assert project.fleets() == ["web-eu"]
    servers = load_settings(project, "web-eu").servers
    assert servers is not None
    assert servers.count == 3
    for experiment in load_experiments(project):
        check_parameters(project, experiment)
    assert (project.root / "playbooks" / "site.yml").is_file()
    assert ".ratchet/" in (project.root / ".gitignore").read_text().splitlines()


def test_a_static_fleet_gets_an_inventory_instead_of_servers(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path), "--static"]) == 0
    project = Project(tmp_path)
    assert load_settings(project, "web").servers is None
    assert (project.inventory("web") / "hosts.yml").is_file()


def test_a_second_time_adds_only_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", str(tmp_path)])
    mine = tmp_path / "inventory" / "web" / "group_vars" / "all" / "nginx.yml"
    mine.write_text("nginx_gzip: false\n")
    before = _contents(tmp_path)
    capsys.readouterr()
    assert main(["init", str(tmp_path)]) == 0
    assert "nothing to add" in capsys.readouterr().out
    assert _contents(tmp_path) == before
    assert main(["init", str(tmp_path), "--fleet", "other"]) == 0
    assert Project(tmp_path).fleets() == ["other", "web"]
    assert before.items() <= _contents(tmp_path).items()


def test_a_folder_with_other_things_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "is not empty, and not a project either" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_or_an_unfit_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) == 2
    assert main(["init", str(tmp_path / "new"), "--fleet", "../up"]) == 2
    assert "is not a fleet's name" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_installed_wheel_holds_all_that_a_project_needs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(CHECKOUT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("nginx_ratchet-*.whl")
    installed = tmp_path / "installed"
    unpack = [sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)]
    subprocess.run(unpack, check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from controller.cli.main import main; sys.exit(main(['init', 'site']))"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert (site / "roles").readlink().is_relative_to(installed)
    for kind in ("playbooks", "roles", "experiments", "ansible.cfg"):
        assert (installed / "controller" / "_bundle" / kind).exists()
    shipped = {path.relative_to(CHECKOUT / "roles") for path in (CHECKOUT / "roles").rglob("*") if path.is_file()}
    roles = (site / "roles").resolve()
    packed = {path.relative_to(roles) for path in roles.rglob("*") if path.is_file()}
    assert {path for path in shipped if "__pycache__" not in path.parts} <= packed
