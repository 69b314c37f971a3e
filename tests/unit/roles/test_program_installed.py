"""Root's program is installed whole: beside the version that was there, which answers until the last rename."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
VARIANT = ROOT / "roles/variant"
ROOMS = sorted(path.name for path in (VARIANT / "files/ratchet_host").glob("*.py"))
PROGRAMS = sorted(path.name for path in (VARIANT / "files").iterdir() if path.is_file() and os.access(path, os.X_OK))
Install = Callable[..., dict[str, Any]]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name in ("lib", "sbin", "compiled", "units"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def install(host: Path) -> Install:
    """Call the module as the role's task does, but for this test's folders; returns its result."""

    def run(*options: str, code: int = 0) -> dict[str, Any]:
        arguments = {
            "library": f"{host}/lib", "folder": f"{host}/sbin", "compiled": f"{host}/compiled",
            "units_folder": f"{host}/units",
        }  # fmt: skip
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_LIBRARY": str(VARIANT / "library"), "ANSIBLE_ACTION_PLUGINS": str(VARIANT / "action_plugins"),
        }  # fmt: skip
        done = subprocess.run(
            ["ansible", "localhost", "-i", "localhost,", "-c", "local",
             "-m", "ratchet_program", "-a", json.dumps(arguments), *options],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        result: dict[str, Any] = yaml.safe_load(done.stdout.rpartition("=> ")[2])
        return result

    return run


def aged(folder: Path) -> None:
    os.utime(folder, (time.time() - 3600,) * 2)


def program(host: Path, version: str) -> Any:
    """The module's own class with a program of two files, as it is at that version."""
    specification = importlib.util.spec_from_file_location("installing", VARIANT / "library/ratchet_program.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    rooms = {"__init__.py": f"# {version}", "main.py": f"# {version}"}
    return module.Program(rooms, {"door": f"#!{version}"}, host / "lib", host / "sbin", host / "compiled")


def present(host: Path) -> list[str]:
    return sorted(path.name for path in (host / "lib/ratchet_host").iterdir())


def test_all_rooms_are_there_once_and_nobody_else_may_write_to_them(host: Path, install: Install) -> None:
    assert install()["changed"]
    assert present(host) == ROOMS
    for path in [*(host / "lib").rglob("*"), *(host / "sbin").iterdir()]:
        assert path.is_symlink() or path.stat().st_mode & 0o022 == 0, path
    assert not install()["changed"]


def test_every_program_of_the_role_is_installed_and_only_what_differs_is_replaced(host: Path, install: Install) -> None:
    assert "ratchet-host" in PROGRAMS
    assert set(PROGRAMS) <= set(install()["differing"])
    assert sorted(path.name for path in (host / "sbin").iterdir()) == PROGRAMS
    for name in PROGRAMS:
        path = host / "sbin" / name
        assert path.read_bytes() == (VARIANT / "files" / name).read_bytes() and path.stat().st_mode & 0o777 == 0o755
        path.write_text("edited")
        assert install()["differing"] == [name]
        assert path.read_bytes() == (VARIANT / "files" / name).read_bytes()


def test_the_units_of_the_role_are_installed_and_only_what_differs_is_replaced(host: Path, install: Install) -> None:
    names = sorted(f"ratchet-{path.name}" for path in (VARIANT / "files").glob("*.service"))
    assert set(names) <= set(install()["differing"])
    assert sorted(path.name for path in (host / "units").iterdir()) == names
    (host / "units" / names[0]).write_text("edited")
    assert install()["differing"] == names[:1]
    assert not any("@TEXT@" in path.read_text() for path in (host / "units").iterdir())


@pytest.mark.parametrize(
    ("unit", "facts", "command"),
    [
        ("[Install]", {}, None),
        ("[Install]", {"UnitFileState": "disabled"}, "enable"),
        ("", {"UnitFileState": "static"}, None),
        ("", {"NeedDaemonReload": "yes"}, "daemon-reload"),
        ("", {"LoadState": "not-found"}, "daemon-reload"),
        ("Environment=RATCHET_TEXT=another", {}, "restart"),
        ("Environment=RATCHET_TEXT=of-this-process", {"MainPID": "0"}, "restart"),
        ('Environment="RATCHET_TEXT=of-this-process" X=1', {}, None),
    ],
)
def test_systemd_is_asked_what_is_in_force(unit: str, facts: dict[str, str], command: str | None) -> None:
    """As a run leaves it that ends after the file: the next one finds every file as it should be."""
    script = (
        "import importlib.util, os, sys; s = importlib.util.spec_from_file_location('m', sys.argv[1]);"
        "m = importlib.util.module_from_spec(s); s.loader.exec_module(m);"
        "said = sys.argv[3].replace('SELF', str(os.getpid()));"
        "print(sorted(m.Units({'a.service': sys.argv[2]}, m.SYSTEMD, lambda _: (0, said, '')).waiting()))"
    )
    usual = {"NeedDaemonReload": "no", "LoadState": "loaded", "UnitFileState": "enabled", "MainPID": "SELF"}
    said = "".join(f"{name}={value}\n" for name, value in (usual | facts).items())
    done = subprocess.run(
        [sys.executable, "-c", script, str(VARIANT / "library/ratchet_program.py"), unit, said],
        env=dict(os.environ, RATCHET_TEXT="of-this-process"), capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str([command] if command else [])


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
    aged(first.parent)
    assert install()["differing"] == ["errors.py"]
    assert not first.exists() and len(list((host / "lib").glob("program-*"))) == 2


def test_a_folder_in_the_place_of_the_link_is_told_and_left_alone(host: Path, install: Install) -> None:
    """A backup that followed links leaves one."""
    (host / "lib/ratchet_host").mkdir()
    (host / "lib/ratchet_host/main.py").write_text("it still answers\n")
    failed = install(code=2)
    assert failed["msg"].startswith(f"{host}/lib/ratchet_host: is a folder where a link belongs; move it away")
    assert present(host) == ["main.py"]
    assert sorted(path.name for path in (host / "lib").iterdir()) == [".lock", "ratchet_host"]


def test_a_second_playbook_waits_and_then_finds_nothing_to_do(host: Path) -> None:
    first, second = program(host, "2"), program(host, "2")
    ended: list[str] = []

    def wait() -> None:
        with second.alone():
            ended.extend(second.differing() or ["nothing"])

    with first.alone():
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        assert not ended
        first.install()
    waiting.join(10)
    assert ended == ["nothing"]
    assert (host / "lib/.lock").exists()


def test_the_module_takes_the_lock_before_it_writes(host: Path, install: Install) -> None:
    result: list[dict[str, Any]] = []
    with (host / "lib/.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call = threading.Thread(target=lambda: result.append(install()))
        call.start()
        call.join(6)
        assert call.is_alive() and not list((host / "lib").glob("program-*"))
    call.join(60)
    assert result and result[0]["changed"] and present(host) == ROOMS


def test_a_playbook_without_the_lock_leaves_no_link_to_nothing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version of the module took none: it may install between any two lines of this one."""
    program(host, "1").install()
    link = Path.symlink_to

    def overtaken(self: Path, *arguments: Any, **named: Any) -> None:
        monkeypatch.undo()
        program(host, "2").install()
        link(self, *arguments, **named)

    monkeypatch.setattr(Path, "symlink_to", overtaken)
    program(host, "2").install()
    assert (host / "lib/ratchet_host/main.py").read_text() == "# 2"


def test_what_cannot_be_cleaned_up_does_not_fail_an_installation(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(host, "1").install()
    aged((host / "lib/ratchet_host").resolve().parent)
    program(host, "2").install()

    def refuse(*_: Any, ignore_errors: bool = False, **__: Any) -> None:
        if not ignore_errors:
            raise PermissionError

    monkeypatch.setattr(shutil, "rmtree", refuse)
    (host / "lib/ratchet_host.py").mkdir()
    program(host, "3").install()
    assert (host / "lib/ratchet_host/main.py").read_text() == "# 3"
