"""SSH as the controller speaks it, against a server in this process that speaks the real protocol."""

from __future__ import annotations

import configparser
import logging
import re
import shlex
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
import pytest

from controller.adapters.files.keys import generate_key
from controller.adapters.secrets import remember
from controller.adapters.ssh import Connection, ask, connect
from controller.adapters.ssh.connection import DISABLED_ALGORITHMS
from controller.adapters.ssh.failures import ConnectionBroken
from controller.model.errors import BadInput, HostFailed
from controller.model.fleet import Host
from tests.unit.adapters.ssh_server import BREAKS, ssh_server

ROOT = Path(__file__).resolve().parents[3]


def _write_key(path: Path, text: str) -> paramiko.PKey:
    path.write_text(text)
    path.chmod(0o600)
    return paramiko.PKey.from_path(path)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    private, public = generate_key("client")
    _write_key(tmp_path / "key", private)
    host_private, host_public = generate_key("server")
    server_key = _write_key(tmp_path / "server", host_private)
    with ssh_server(server_key, " ".join(public.split()[:2])) as port:
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_public}")
        yield Host(
            name="web-1",
            address="127.0.0.1",
            port=port,
            key_file=tmp_path / "key",
            known_hosts=tmp_path / "known_hosts",
        )


@pytest.fixture
def ssh(host: Host) -> Iterator[Connection]:
    with connect(host, user="ratchet") as connection:
        yield connection


def test_a_command_gives_its_exit_code_and_both_outputs(ssh: Connection) -> None:
    assert ssh.run("echo out; echo err >&2; exit 3", timeout=10) == (3, "out\n", "err\n")


def test_much_output_on_both_sides_comes_whole(ssh: Connection) -> None:
    code, out, err = ssh.run("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2", timeout=30)
    assert (code, len(out), len(err)) == (0, 3_000_000, 3_000_000)


def test_a_command_that_takes_too_long_is_ended_at_its_deadline(ssh: Connection) -> None:
    started = time.monotonic()
    with pytest.raises(HostFailed, match="no answer within 1 s"):
        ssh.run("while :; do echo busy; sleep 0.1; done", timeout=1)
    assert time.monotonic() - started < 5


def test_a_command_that_floods_is_ended(ssh: Connection) -> None:
    with pytest.raises(HostFailed, match="more than 16 MiB"):
        ssh.run("yes", timeout=60)


def test_a_stream_answers_line_by_line(ssh: Connection) -> None:
    with ssh.stream("cat") as channel:
        lines = channel.lines(timeout=10)
        for word in ("one", "two"):
            channel.send(word)
            assert next(lines) == word


def test_a_silent_stream_is_given_up_after_its_patience(ssh: Connection) -> None:
    with ssh.stream("echo first; sleep 30") as channel:
        lines = channel.lines(timeout=0.5)
        assert next(lines) == "first"
        with pytest.raises(HostFailed, match="no answer within"):
            next(lines)


def test_a_stream_whose_command_fails_says_why(ssh: Connection) -> None:
    with ssh.stream("echo last; echo refused >&2; exit 1") as channel:
        lines = channel.lines(timeout=10)
        assert next(lines) == "last"
        with pytest.raises(HostFailed, match="the command ended with 1: refused"):
            next(lines)


def test_a_stream_that_is_closed_here_ends_quietly(ssh: Connection) -> None:
    with ssh.stream("cat") as channel:
        threading.Timer(0.3, channel.close).start()
        assert list(channel.lines(timeout=10)) == []
        with pytest.raises(HostFailed, match="takes no input"):
            channel.send("too late")


def test_closing_a_stream_ends_the_commands_input(ssh: Connection, tmp_path: Path) -> None:
    with ssh.stream(f"cat > /dev/null; echo ended > {tmp_path}/seen") as channel:
        channel.send("one")
    deadline = time.monotonic() + 10
    while not (tmp_path / "seen").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_download_is_whole_or_not_there(ssh: Connection, tmp_path: Path) -> None:
    target = tmp_path / "evidence"
    ssh.download("head -c 2000000 /dev/zero", target)
    assert target.stat().st_size == 2_000_000
    for command, complaint in [
        ("head -c 5 /dev/zero; echo gone >&2; exit 1", "ended with 1: gone"),
        ("yes", "more than"),
    ]:
        with pytest.raises(HostFailed, match=complaint):
            ssh.download(command, tmp_path / "other", limit=1_000_000)
        assert not (tmp_path / "other").exists()


def test_each_command_is_logged_with_how_it_ended_and_what_it_said_last(
    ssh: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remember("tok-1234")
    caplog.set_level(logging.INFO, logger="controller.adapters.ssh")
    ssh.run("printf 12345; echo tok-1234 refused >&2; exit 3", timeout=10)
    ssh.download("printf 123456", tmp_path / "evidence")
    with ssh.stream("echo 123456; sleep 30") as channel:
        next(channel.lines(timeout=10))
    with pytest.raises(HostFailed):
        ssh.run("echo " + "x" * 1000 + "; sleep 30", timeout=0.5)
    told = [re.sub(r"in \d+\.\d\d s", "in N s", record.getMessage()) for record in caplog.records]
    assert told[0].startswith("web-1: `printf 12345; echo tok-1234")
    assert told[0].endswith("`: exit 3 in N s, 5 bytes; 17 on stderr: *** refused")
    assert told[1] == "web-1: `printf 123456`: exit 0 in N s, 6 bytes; 0 on stderr: nothing"
    assert told[2] == "web-1: `echo 123456; sleep 30`: no exit code in N s, 7 bytes; 0 on stderr: nothing"
    assert "no exit code in N s, 1001 bytes" in told[3] and len(told[3]) < 500


def test_a_host_key_that_is_not_known_is_refused_with_the_line_to_add(host: Host) -> None:
    host.known_hosts.write_text("")
    with pytest.raises(HostFailed, match="is not in known_hosts") as caught, connect(host, user="ratchet"):
        pass
    assert "ssh-ed25519 AAAA" in caught.value.next_step
    assert str(host.known_hosts) in caught.value.next_step


def test_a_revoked_key_is_not_trusted_and_the_rest_of_the_file_is(host: Host) -> None:
    name, known = f"[127.0.0.1]:{host.port}", host.known_hosts.read_text()
    mine, other = " ".join(known.split()[1:3]), " ".join(generate_key("other")[1].split()[:2])
    host.known_hosts.write_text(
        f"@revoked {name} {other}\n{name} {other}\n@cert-authority * {other}\nweb-1,{name} {mine}\n"
    )
    with connect(host, user="ratchet"):
        pass
    host.known_hosts.write_text(f"@revoked {name} {mine}\n{known}")
    with pytest.raises(HostFailed, match="is not in known_hosts"), connect(host, user="ratchet"):
        pass


def test_a_wrong_host_key_is_refused_at_once_and_loudly(host: Host) -> None:
    host.known_hosts.write_text(f"[127.0.0.1]:{host.port} {generate_key('other')[1]}")
    pauses: list[float] = []
    with pytest.raises(HostFailed, match="WRONG HOST KEY"), connect(host, user="ratchet", sleep=pauses.append):
        pass
    assert pauses == []


def test_a_question_is_asked_again_when_the_connection_breaks_under_it(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    command = f"echo x >> {tmp_path}/asked; [ $(wc -l < {tmp_path}/asked) -gt 1 ] || exit {BREAKS}; echo yes"
    assert ask(host, "ratchet", command, timeout=10, sleep=pauses.append) == (0, "yes\n", "")
    assert len(pauses) == 1
    assert f"once more in {pauses[0]:.1f} s" in caplog.text


def test_a_question_under_which_the_connection_always_breaks_is_given_up(host: Host, tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="the connection broke"):
        ask(host, "ratchet", f"echo x >> {tmp_path}/asked; exit {BREAKS}", timeout=10, sleep=lambda _: None)
    assert (tmp_path / "asked").read_text() == "x\nx\n"


def test_a_key_that_the_host_does_not_accept_is_named(host: Host) -> None:
    refused = pytest.raises(HostFailed, match=f"refuses the key {host.key_file} for user somebody")
    with refused, connect(host, user="somebody"):
        pass


def test_an_unreachable_host_is_tried_again_with_growing_pauses_then_given_up(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nobody = host.model_copy(update={"port": reserved.getsockname()[1]})
        pauses: list[float] = []
        refused = pytest.raises(HostFailed, match=r"Connection refused \(tried 3 times\)")
        with refused, connect(nobody, user="ratchet", sleep=pauses.append):
            pass
    assert 0.25 <= pauses[0] <= 0.75 <= pauses[1] <= 2.25
    assert len(pauses) == 2
    assert caplog.text.count("unreachable over SSH: Connection refused") == 3
    assert f"attempt 2 of 3 failed, again in {pauses[1]:.1f} s" in caplog.text


def test_a_host_that_accepts_and_says_nothing_is_given_up(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = host.model_copy(update={"port": mute.getsockname()[1]})
        given_up = pytest.raises(HostFailed, match="its SSH server does not answer")
        with given_up, connect(silent, user="ratchet", attempts=1):
            pass


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("key", None, "the SSH key is missing"),
        ("key", "not a key", "the SSH key cannot be read"),
        ("known_hosts", None, "there is no known_hosts"),
    ],
)
def test_a_missing_or_damaged_key_or_known_hosts_is_bad_input(
    host: Host, file: str, text: str | None, complaint: str
) -> None:
    path = host.key_file.with_name(file)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(BadInput, match=complaint), connect(host, user="ratchet"):
        pass


def test_nothing_but_modern_algorithms_is_spoken() -> None:
    spoken = {
        kind: [name for name in getattr(paramiko.Transport, f"_preferred_{kind}") if name not in disabled]
        for kind, disabled in DISABLED_ALGORITHMS.items()
    }
    assert spoken == {
        "kex": ["mlkem768x25519-sha256", "curve25519-sha256@libssh.org", "diffie-hellman-group16-sha512"],
        "ciphers": ["aes128-ctr", "aes192-ctr", "aes256-ctr", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com"],
        "macs": ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"],
    }


def test_ansible_s_ssh_is_as_strict() -> None:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "ansible.cfg")
    words = shlex.split(settings["ssh_connection"]["ssh_args"])
    done = subprocess.run(["ssh", "-F", "none", *words, "-G", "web-1"], capture_output=True, text=True, check=True)
    options = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert options["forwardagent"] == "no" and options["forwardx11"] == "no"
    assert options["identitiesonly"] == "yes" and options["passwordauthentication"] == "no"
    assert options["stricthostkeychecking"] in {"true", "yes"}
    assert not re.search(r"-cbc|nistp|group14|group-exchange", options["ciphers"] + options["kexalgorithms"])
    assert all("etm" in mac for mac in options["macs"].split(","))


def _packet(body: bytes) -> bytes:
    padding = 8 - (len(body) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack("!IB", len(body) + padding + 1, padding) + body + b"\0" * padding


GREETING = b"SSH-2.0-x\r\n"
NEGOTIATION = GREETING + _packet(b"\x14" + b"a" * 16 + (struct.pack("!I", 2) + b"\xff\xfe") * 10 + b"\0" * 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xfe\xff\n" * 3,
        b"SSH-\xff\r\n",
        b"SSH-2.0\r\n",
        GREETING + _packet(b""),
        GREETING + _packet(b"\x14"),
        NEGOTIATION,
        GREETING + _packet(b"\x01" + struct.pack("!II", 1, 3) + b"\xff\xfe\xfd"),
        GREETING + b"\0" * 8,
    ],
)
def test_a_server_that_answers_garbage_is_a_host_that_failed(
    host: Host, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    for name in ("BANNER_SECONDS", "NEGOTIATION_SECONDS", "AUTHENTICATION_SECONDS"):
        monkeypatch.setattr(f"controller.adapters.ssh.connection.{name}", 1.0)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(answer)
            connection.recv(65536)
            connection.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        garbage = host.model_copy(update={"port": listener.getsockname()[1]})
        failed = pytest.raises(HostFailed, match="web-1")
        with failed, connect(garbage, user="ratchet", attempts=1):
            pass


@pytest.mark.parametrize("method", ["exec_command", "shutdown_write", "recv", "fileno"])
@pytest.mark.parametrize("error", [EOFError(), IndexError("byte"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "start")])
def test_whatever_paramiko_raises_under_a_command_is_told_as_a_broken_connection(
    ssh: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    real = getattr(paramiko.Channel, method)

    def fail(channel: paramiko.Channel, *arguments: object) -> object:
        if channel.get_transport().server_mode:
            return real(channel, *arguments)
        raise error

    monkeypatch.setattr(paramiko.Channel, method, fail)
    for ask_it in (lambda: ssh.run("echo x", timeout=5), lambda: ssh.download("echo x", tmp_path / "file")):
        with pytest.raises(ConnectionBroken) as caught:
            ask_it()
        assert caught.value.where == "web-1"
        assert caught.value.next_step
    assert not (tmp_path / "file").exists()


def test_an_error_of_whoever_talks_with_a_command_stays_what_it_is(ssh: Connection) -> None:
    with pytest.raises(ZeroDivisionError), ssh.stream("cat"):
        raise ZeroDivisionError


def test_a_host_that_drips_is_given_up_and_a_slow_line_is_not(
    ssh: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.adapters.ssh.stream.PACE_SECONDS", 0.5)
    monkeypatch.setattr("controller.adapters.ssh.connection.LEAST_DOWNLOADED", 4096)
    ssh.download("for i in 1 2 3 4 5; do head -c 8192 /dev/zero; sleep 0.2; done", tmp_path / "slow")
    assert (tmp_path / "slow").stat().st_size == 5 * 8192
    with pytest.raises(HostFailed, match="it sends too slowly"):
        ssh.download("while :; do echo x; sleep 0.1; done", tmp_path / "drips")
    assert not (tmp_path / "drips").exists()


def test_a_stream_ends_at_the_longest_time_that_its_caller_knows(ssh: Connection) -> None:
    with ssh.stream("while :; do echo x; sleep 0.1; done") as channel, pytest.raises(HostFailed, match="not done"):
        for _ in channel.lines(timeout=0.5, longest=2):
            pass
