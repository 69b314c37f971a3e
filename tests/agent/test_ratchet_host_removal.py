"""Removal of what others may write in: bounded, by nobody's rights but theirs, and never fatal."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ratchet_host import removal
from ratchet_host.files import remove_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and another account")
OTHER = 33
MAKE = """
import os, sys
os.setgid({other}); os.setuid({other})
for _ in range({levels}):
    os.mkdir("d"); os.chdir("d"); open("f", "w").close()
"""
KEEP = """
import os, time
folder, number, end = os.open(".", os.O_RDONLY), 0, time.time() + 20
print("begun", flush=True)
while time.time() < end:
    number += 1
    try:
        os.close(os.open(f"f{number % 500}", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    except OSError:
        pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shadow"
    (path / "theirs").mkdir(parents=True)
    os.chown(path / "theirs", OTHER, OTHER)
    yield path
    subprocess.run(["chattr", "-R", "-i", tmp_path], capture_output=True, check=False)


def deep(folder: Path) -> None:
    code = MAKE.format(other=OTHER, levels=1200)
    subprocess.run([sys.executable, "-c", code], cwd=folder / "theirs", check=True)


def deep_and_root_s(folder: Path) -> None:
    at = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


def closed(folder: Path) -> None:
    (folder / "theirs/closed/inner").mkdir(parents=True)
    (folder / "theirs/closed/inner/file").touch()
    for path in (folder / "theirs").rglob("*"):
        os.chown(path, OTHER, OTHER)
    (folder / "theirs/closed/inner").chmod(0)
    (folder / "theirs/closed").chmod(0)


def links(folder: Path) -> None:
    for name in ("theirs/out", "out"):
        (folder / name).symlink_to(folder.parent / "kept")


def odd(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "open").mkdir(mode=0o777)
    (folder / "open").chmod(0o1777)
    (folder / "open/file").touch()
    (folder / "theirs/\udcff\n -rf").touch()
    os.chown(folder / "theirs/\udcff\n -rf", OTHER, OTHER)


@pytest.mark.parametrize("spoil", [deep, deep_and_root_s, closed, links, odd])
def test_a_folder_goes_whatever_is_in_it_and_nothing_beside_it(folder: Path, spoil: Callable[[Path], None]) -> None:
    (folder.parent / "kept").mkdir()
    (folder.parent / "kept/file").touch()
    spoil(folder)
    # A busy machine may take longer for a thousand levels than a session would wait.
    assert removal.remove(folder, seconds=30)
    assert [path.name for path in folder.parent.iterdir()] == ["kept"] and (folder.parent / "kept/file").exists()


def test_files_that_keep_coming_hold_nobody_up_and_the_name_is_free_at_once(folder: Path) -> None:
    keeping = subprocess.Popen(
        [sys.executable, "-c", "import os; os.setgid(33); os.setuid(33)\n" + KEEP],
        cwd=folder / "theirs", stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert keeping.stdout and keeping.stdout.readline()
        started = time.monotonic()
        removal.remove(folder)
        assert time.monotonic() - started < removal.SECONDS + 2 and not folder.exists()
        folder.mkdir()
    finally:
        keeping.kill()
        keeping.wait()
    removal.sweep(folder.parent, seconds=30)
    assert [path.name for path in folder.parent.iterdir()] == ["shadow"]


def test_what_is_immutable_stays_aside_and_is_swept_later(folder: Path) -> None:
    (folder / "fixed").touch()
    if subprocess.run(["chattr", "+i", folder / "fixed"], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem knows no immutable files")
    remove_tree(folder)
    assert not folder.exists()
    (aside,) = folder.parent.iterdir()
    assert [path.name for path in aside.iterdir()] == ["fixed"]
    subprocess.run(["chattr", "-i", aside / "fixed"], check=True)
    removal.sweep(folder.parent)
    assert list(folder.parent.iterdir()) == []


def test_a_busy_mount_goes_from_its_place(folder: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("no mount is allowed here")
    (folder / "file").touch()
    busy = subprocess.Popen(["sleep", "20"], cwd=folder)
    try:
        assert removal.remove(folder) and list(folder.parent.iterdir()) == []
    finally:
        busy.kill()
        busy.wait()
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "nothing"])
def test_what_is_no_folder_goes_too_and_no_link_is_followed(folder: Path, kind: str) -> None:
    place = folder.parent / "place"
    if kind == "file":
        place.touch()
    elif kind != "nothing":
        place.symlink_to(folder if kind == "link" else "nowhere")
    assert removal.remove(place)
    assert [path.name for path in folder.parent.iterdir()] == ["shadow"] and (folder / "theirs").is_dir()


def test_root_deletes_nothing_for_an_account_that_it_could_not_delete_itself(folder: Path, tmp_path: Path) -> None:
    """A folder of root's that somebody got into his own stays, with what is in it."""
    (folder / "theirs/root-s").mkdir()
    (folder / "theirs/root-s/file").touch()
    assert not removal.remove(folder)
    (left,) = tmp_path.rglob("file")
    assert left.parent.name == "root-s"
