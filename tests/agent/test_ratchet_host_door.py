"""The door of root's program: what it runs, where that comes from, and where its compiled form is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles/variant/files"


@pytest.fixture
def door(tmp_path: Path) -> Path:
    """The door with its folders moved; the program is behind a link, as it is installed."""
    shutil.copytree(
        FILES / "ratchet_host", tmp_path / "lib/v1/ratchet_host", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "lib/ratchet_host").symlink_to("v1/ratchet_host")
    text = (FILES / "ratchet-host").read_text()
    for there, here in (("/usr/local/lib/ratchet/", "lib/"), ("/run/ratchet/compiled", "compiled")):
        assert there in text
        text = text.replace(there, f"{tmp_path}/{here}")
    path = tmp_path / "door"
    path.write_text(text)
    return path


def version(door: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-IS", str(door), "--version"],
        cwd=door.parent, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.strip()


def test_compiled_forms_are_kept_apart_from_the_sources_and_the_standard_library_s_stay_where_they_are(
    door: Path,
) -> None:
    version(door)
    compiled = [path.relative_to(door.parent / "compiled") for path in (door.parent / "compiled").rglob("*.pyc")]
    package = (door.parent / "lib/v1/ratchet_host").relative_to("/")
    assert {path.name.partition(".")[0] for path in compiled} >= {"main", "command_line", "paths"}
    assert {path.parent for path in compiled} == {package}
    assert not list((door.parent / "lib").rglob("__pycache__"))


def test_nothing_is_searched_but_the_standard_library_and_the_program_s_folder(door: Path) -> None:
    planted = door.parent / "planted"
    planted.mkdir()
    for folder in (planted, door.parent):
        for name in ("ratchet_host", "json", "contextlib"):
            (folder / f"{name}.py").write_text("raise SystemExit('planted')")
    # Nor does the program's own folder stand in for the standard library, or take anything but sources.
    for name in ("argparse.py", "json.py", "ratchet_host.py"):
        (door.parent / "lib/v1" / name).write_text("raise SystemExit('planted')")
    (door.parent / "lib/v1/ratchet_host/__pycache__").mkdir()
    assert version(door, PYTHONPATH=str(planted)) == "1"


def test_a_compiled_form_of_another_source_is_not_used(door: Path) -> None:
    source = door.parent / "lib/v1/ratchet_host/__init__.py"
    assert version(door) == "1"
    source.write_text(source.read_text().replace('VERSION = "1"', 'VERSION = "2"'))
    os.utime(source, (1, 1))
    assert version(door) == "2"
    (compiled,) = (door.parent / "compiled").rglob("__init__.*.pyc")
    compiled.write_bytes(b"torn")
    assert version(door) == "2"


def test_an_update_moves_a_link_and_the_next_call_runs_it(door: Path) -> None:
    lib = door.parent / "lib"
    shutil.copytree(lib / "v1", lib / "v2")
    room = lib / "v2/ratchet_host/__init__.py"
    room.write_text(room.read_text().replace('VERSION = "1"', 'VERSION = "2"'))
    os.utime(room, ns=((lib / "v1/ratchet_host/__init__.py").stat().st_mtime_ns,) * 2)
    assert version(door) == "1"
    (lib / "following").symlink_to("v2/ratchet_host")
    (lib / "following").replace(lib / "ratchet_host")
    assert version(door) == "2"


def test_a_caller_s_limit_of_file_sizes_leaves_no_torn_compiled_form(door: Path) -> None:
    limited = subprocess.run(
        ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-IS", str(door), "--version"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert limited.stdout == "1\n", limited.stderr
    whole = {path.name for path in (door.parent / "compiled").rglob("*") if path.is_file()}
    assert not [name for name in whole if not name.endswith(".pyc")]
    assert version(door) == "1"


@pytest.mark.parametrize("keep", [16, 17, 200, -1])
def test_a_compiled_form_that_was_torn_is_not_used(door: Path, keep: int) -> None:
    assert version(door) == "1"
    for compiled in (door.parent / "compiled").rglob("*.pyc"):
        compiled.write_bytes(compiled.read_bytes()[:keep])
    assert version(door) == "1"
