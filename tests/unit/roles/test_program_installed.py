"""Root's program is installed whole: beside the version that was there, which answers until the last rename."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
VARIANT = ROOT / "roles/variant"
ROOMS = sorted(path.name for path in (VARIANT / "files/ratchet_host").glob("*.py"))
Install = Callable[..., dict[str, Any]]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name in ("lib", "sbin", "compiled"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def install(host: Path) -> Install:
    """Call the module as the role's task does, but for this test's folders; returns its result."""

    def run(*options: str, code: int = 0) -> dict[str, Any]:
        arguments = {"library": f"{host}/lib", "door_path": f"{host}/sbin/door", "compiled": f"{host}/compiled"}
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_LIBRARY": str(VARIANT / "library"), "ANSIBLE_ACTION_PLUGINS": str(VARIANT / "action_plugins"),
        }  # fmt: skip
        done = subprocess.run(
            ["ansible", "localhost", "-m", "ratchet_program", "-a", json.dumps(arguments), *options],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        result: dict[str, Any] = yaml.safe_load(done.stdout.rpartition("=> ")[2])
        return result

    return run


def present(host: Path) -> list[str]:
    return sorted(path.name for path in (host / "lib/ratchet_host").iterdir())


def test_all_rooms_are_there_once_and_nobody_else_may_write_to_them(host: Path, install: Install) -> None:
    assert install()["changed"]
    assert present(host) == ROOMS
    for path in [*(host / "lib").rglob("*"), host / "sbin/door"]:
        assert path.is_symlink() or path.stat().st_mode & 0o022 == 0, path
    assert os.access(host / "sbin/door", os.X_OK)
    assert not install()["changed"]


def test_check_mode_tells_and_writes_nothing(host: Path, install: Install) -> None:
    result = install("--check", "--diff")
    assert result["changed"] and set(ROOMS) <= set(result["differing"])
    assert not list((host / "lib").iterdir()) and not list((host / "sbin").iterdir())


def test_an_update_leaves_no_room_or_file_of_an_earlier_version(host: Path, install: Install) -> None:
    (host / "lib/ratchet_host.py").write_text("the program, when it was one file\n")
    install()
    first = (host / "lib/ratchet_host").resolve()
    (first / "former_room.py").write_text("")
    (first / "marks.py").write_text("edited")
    (host / "compiled").mkdir()
    assert install()["differing"] == ["former_room.py", "marks.py"]
    assert present(host) == ROOMS and not (host / "lib/ratchet_host.py").exists()
    assert not (host / "compiled").exists()
    # The version before stays for the calls that have begun with it, and for no longer than the next update.
    assert first.is_dir()
    (host / "lib/ratchet_host/errors.py").chmod(0o666)
    assert install()["differing"] == ["errors.py"]
    assert not first.exists() and len(list((host / "lib").glob("program-*"))) == 2


def test_a_folder_in_the_place_of_the_link_is_told_and_left_alone(host: Path, install: Install) -> None:
    """A backup that followed links leaves one."""
    (host / "lib/ratchet_host").mkdir()
    (host / "lib/ratchet_host/main.py").write_text("it still answers\n")
    failed = install(code=2)
    assert failed["msg"].startswith(f"{host}/lib/ratchet_host: is a folder where a link belongs; move it away")
    assert present(host) == ["main.py"]
    assert [path.name for path in (host / "lib").iterdir()] == ["ratchet_host"]
