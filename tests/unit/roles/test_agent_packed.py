"""The agent is installed as one file, packed from its folder: it runs alone, and changes only when its sources do."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PROBE = ROOT / "roles/probe"
SOURCES = PROBE / "files/ratchet-agent"
ROOMS = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py"))
Install = Callable[..., dict[str, Any]]


@pytest.fixture
def role(tmp_path: Path) -> Path:
    """A copy of the role with what Python, editors and people leave behind."""
    folder = tmp_path / "role"
    shutil.copytree(PROBE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    package = folder / "files/ratchet-agent/ratchet_agent"
    (package / "__pycache__").mkdir()
    (package / "__pycache__/plan.cpython-311.pyc").write_bytes(b"compiled")
    (package / "plan.py~").write_text("an editor's copy")
    return folder


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """Where it is installed."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin/ratchet-agent"


@pytest.fixture
def install(role: Path, agent: Path) -> Install:
    """Call the plugin as the role's task does, but for this test's folder; returns its result."""

    def run(*options: str) -> dict[str, Any]:
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "ANSIBLE_ACTION_PLUGINS": str(role / "action_plugins"),
            "ANSIBLE_LIBRARY": str(role / "library"),
        }  # fmt: skip
        arguments = {"dest": str(agent), "mode": "0755"}
        done = subprocess.run(
            ["ansible", "localhost", "-i", "localhost,", "-c", "local",
             "-m", "ratchet_agent", "-a", json.dumps(arguments), *options],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = yaml.safe_load(done.stdout.rpartition("=> ")[2])
        return result

    return run


def call(agent: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without the packages of this machine, and from elsewhere."""
    return subprocess.run(
        [sys.executable, "-IS", str(agent), *arguments],
        cwd="/", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_it_holds_the_rooms_and_nothing_else_and_runs_alone(install: Install, agent: Path) -> None:
    assert install()["changed"]
    assert stat.S_IMODE(agent.stat().st_mode) == 0o755
    assert agent.read_bytes().startswith(b"#!/usr/bin/python3\n")
    with zipfile.ZipFile(agent) as packed:
        assert packed.namelist() == ROOMS
        for entry in packed.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert packed.read(entry) == (SOURCES / entry.filename).read_bytes()
    assert call(agent, "--version").stdout == "1\n"
    refused = call(agent, "read", "../etc", "1", "csv")
    assert refused.returncode == 2
    assert refused.stderr == "ratchet-agent: no run or trial can be called '../etc', '1'\n"
    assert [path.name for path in agent.parent.iterdir()] == ["ratchet-agent"]


def test_it_changes_with_its_sources_and_not_with_their_times(install: Install, role: Path, agent: Path) -> None:
    install()
    before = agent.read_bytes()
    for path in (role / "files/ratchet-agent").rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert not install()["changed"]
    assert agent.read_bytes() == before
    version = role / "files/ratchet-agent/ratchet_agent/__init__.py"
    version.write_text(version.read_text().replace('VERSION = "1"', 'VERSION = "2"'))
    assert install()["changed"]
    assert call(agent, "--version").stdout == "2\n"


def test_every_room_is_loaded_at_the_start_so_that_an_update_may_replace_the_file_under_a_trial(
    install: Install, agent: Path
) -> None:
    install()
    program = "import sys; sys.path.insert(0, sys.argv[1]); import ratchet_agent.main; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-IS", "-c", program, str(agent)], capture_output=True, text=True, check=True, timeout=30
    ).stdout.split()
    rooms = {Path(room).stem for room in ROOMS} - {"__main__", "__init__"}
    assert rooms == {name.partition(".")[2] for name in loaded if name.startswith("ratchet_agent.")}


def test_check_mode_tells_and_writes_nothing(install: Install, agent: Path) -> None:
    assert install("--check", "--diff")["changed"]
    assert not agent.exists()
