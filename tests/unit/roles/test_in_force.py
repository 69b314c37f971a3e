"""Role base asks what is in force: each service by what it shows of itself, whoever wrote the file and when."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SPECIFICATION = importlib.util.spec_from_file_location(
    "base_in_force", ROOT / "roles/base/module_utils/base_in_force.py"
)
assert SPECIFICATION and SPECIFICATION.loader
base_in_force: Any = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(base_in_force)
needs_sshd = pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd here")


def run(command: list[str]) -> tuple[int, str, str]:
    if shutil.which(command[0]) is None:
        return 127, "", "not installed"
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


class Commands:
    """Answers of systemd, as they are on a host; sshd is the real one."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(" ".join(command))
        for word, answer in self.answers.items():
            if word in self.calls[-1]:
                return 0, answer, ""
        return run(command)


# The kernel


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for key, value in {"net/ipv4/send": "1", "fs/range": "1\t2", "fs/right": "0"}.items():
        (tmp_path / "sys" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / key).write_text(f"{value}\n")
    return tmp_path / "sys"


TEXT = "# words = none\n-net.ipv4.send = 0\n-fs.range = 1 2\nfs.right=0\n-fs.missing = 1\n"


def test_a_parameter_of_the_kernel_is_read_and_only_what_differs_is_set(proc: Path) -> None:
    kernel = base_in_force.Kernel(Path("/etc/sysctl.d/60.conf"), TEXT, Commands(analyze=TEXT), proc)
    assert not kernel.in_force()
    before = (proc / "fs/range").stat().st_mtime_ns
    assert kernel.load() == "" and kernel.in_force()
    assert (proc / "net/ipv4/send").read_text() == "0" and (proc / "fs/range").stat().st_mtime_ns == before


def test_a_parameter_that_a_later_file_sets_is_the_operators_and_is_told(proc: Path) -> None:
    commands = Commands(analyze=TEXT + "# /etc/sysctl.d/99-own.conf\nnet/ipv4/send = 1\n")
    kernel = base_in_force.Kernel(Path("/etc/sysctl.d/60.conf"), TEXT, commands, proc)
    assert kernel.in_force() and kernel.load() == ""
    assert (proc / "net/ipv4/send").read_text() == "1\n"
    assert kernel.remarks() == ["another file of sysctl.d sets what /etc/sysctl.d/60.conf would: net.ipv4.send = 1"]


def test_nobody_is_asked_for_other_files_while_all_values_are_right(proc: Path) -> None:
    (proc / "net/ipv4/send").write_text("0")
    commands = Commands()
    kernel = base_in_force.Kernel(Path("/etc/sysctl.d/60.conf"), TEXT, commands, proc)
    assert kernel.in_force() and kernel.remarks() == [] and commands.calls == []


# sshd


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "ssh"
    (folder / "sshd_config.d").mkdir(parents=True)
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    own = f"HostKey {key}\nPidFile {tmp_path}/pid\nListenAddress 127.0.0.1:{port()}\n"
    (folder / "sshd_config").write_text(f"Include {folder}/sshd_config.d/*.conf\n{own}")
    return folder


def port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        number: int = listening.getsockname()[1]
        return number


def ssh(etc: Path, text: str, **answers: str) -> Any:
    answers = {"StateChange": "ActiveState=active\nStateChangeTimestampMonotonic=1\n", **answers}
    return base_in_force.Ssh(etc / "sshd_config.d/10-ratchet.conf", text, Commands(**answers))


@needs_sshd
@pytest.mark.parametrize("include", ["{etc}/sshd_config.d/*.conf", '/nowhere "{etc}/sshd_config.d/*.conf" # all'])
def test_the_whole_configuration_is_tried_before_the_file_is_there(etc: Path, include: str) -> None:
    main = (etc / "sshd_config").read_text().partition("\n")[2]
    (etc / "sshd_config").write_text(f"include={include.format(etc=etc)}\n{main}")
    factors = etc / "sshd_config.d/50-factors.conf"
    factors.write_text("KbdInteractiveAuthentication yes\nAuthenticationMethods publickey,keyboard-interactive\n")
    said = ssh(etc, "KbdInteractiveAuthentication no\n").objection()
    assert "keyboard-interactive" in said and "base_ssh_hardening: false" in said and "\n" not in said
    assert ssh(etc, "PasswordAuthentication no\n").objection() == ""
    assert [path.name for path in (etc / "sshd_config.d").iterdir()] == [factors.name]


@needs_sshd
def test_an_error_names_the_file_in_its_place(etc: Path) -> None:
    assert f"{etc}/sshd_config.d/10-ratchet.conf" in ssh(etc, "NoSuchKeyword yes\n").objection()


@needs_sshd
def test_an_address_that_sshd_cannot_listen_on_is_an_objection(etc: Path) -> None:
    main = (etc / "sshd_config").read_text()
    (etc / "sshd_config").write_text(main.replace("ListenAddress 127.0.0.1", "ListenAddress 192.0.2.1"))
    assert "none of its addresses" in ssh(etc, "PasswordAuthentication no\n").objection()


@needs_sshd
def test_what_another_file_decides_is_told(etc: Path) -> None:
    text = "PermitRootLogin prohibit-password\nPasswordAuthentication no\nMACs -hmac-sha1*\n"
    assert ssh(etc, text).remarks() == []
    daemon = ssh(etc, text)
    daemon.objection()
    assert daemon.remarks() == []
    (etc / "sshd_config.d/05-own.conf").write_text("PasswordAuthentication yes\nMACs hmac-sha1,hmac-sha2-256\n")
    daemon.objection()
    (remark,) = daemon.remarks()
    assert remark.endswith("decides on PasswordAuthentication yes; MACs hmac-sha1")


def placed(etc: Path, age: float) -> Path:
    """The file of the role, and sshd's pid file, which it writes when it reads its configuration."""
    path = etc / "sshd_config.d/10-ratchet.conf"
    path.write_text("PasswordAuthentication no\n")
    (etc.parent / "pid").write_text("1\n")
    os.utime(etc.parent / "pid", (time.time() - age,) * 2)
    return path


@needs_sshd
@pytest.mark.parametrize(("age", "in_force"), [(60, False), (-0.5, True), (-3600, False)])
def test_sshd_goes_by_a_file_that_is_older_than_its_last_reload(etc: Path, age: float, in_force: bool) -> None:
    """A reload an hour from now is of a clock that was set back since."""
    placed(etc, age)
    daemon = ssh(etc, "PasswordAuthentication no\n")
    daemon.run = lambda command, asked=daemon.run: (
        run([*command, "-f", str(etc / "sshd_config")]) if command[0] == "/usr/sbin/sshd" else asked(command)
    )
    assert daemon.in_force() is in_force


def test_a_daemon_that_a_socket_starts_for_each_connection_is_never_behind(etc: Path) -> None:
    placed(etc, 60)
    assert ssh(etc, "", StateChange="ActiveState=inactive\n").in_force()


@pytest.fixture
def greeter() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            for words in (b"SSH-2.0-x\r\n", b"HTTP/1.1 400\r\n"):
                connection, _ = listening.accept()
                connection.sendall(words)
                connection.close()

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield listening.getsockname()


def test_only_a_greeting_counts_as_an_answer(greeter: tuple[str, int]) -> None:
    assert base_in_force.greets(*greeter)
    assert not base_in_force.greets(*greeter)
    assert not base_in_force.greets("127.0.0.1", port())
