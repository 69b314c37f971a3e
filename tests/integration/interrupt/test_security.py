"""On a provisioned fleet: the probe's account gets no further than its two commands; a run leaves no secret behind."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.integration.operators_fleet import FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

PROBE = "ratchet-probe"
ALLOWED = "this key allows exactly"
SESSION = "/usr/local/sbin/ratchet-host session --lease 60 --design duet --bound 60"


class Door:
    """The probe's account on one host, knocked at with OpenSSH and the fleet's own key."""

    def __init__(self, fleet: FleetUnderTest) -> None:
        self.fleet = fleet
        self.host = sorted(fleet.status())[0]
        self.address = fleet.address(self.host)
        known_hosts = fleet.project / "inventory" / fleet.name / "known_hosts"
        self.options = ["-F", "none", "-i", str(fleet.project / ".ratchet/keys" / fleet.name), "-o", "BatchMode=yes"]
        self.options += ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes"]

    def run(self, program: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *self.options, *words], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    def ssh(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.run("ssh", *words, stdin=stdin)

    @property
    def account(self) -> str:
        return f"{PROBE}@{self.address}"

    def as_probe(self, script: str) -> subprocess.CompletedProcess[str]:
        """What somebody could do who had got a shell of that account after all."""
        return self.fleet.ssh(self.host, f"sudo runuser -u {PROBE} -- /bin/sh -c {shlex.quote(script)}")


@pytest.fixture(scope="module")
def door(fleet: FleetUnderTest) -> Door:
    return Door(fleet)


COMMANDS = [
    *"""id
bash -i
/bin/sh -c id
ratchet-agent
ratchet-agent ssh
ratchet-agent run; id
ratchet-agent run && id
ratchet-agent run | id
ratchet-agent run $(id)
ratchet-agent run `id`
id #ratchet-agent run
X=1 ratchet-agent run
env ratchet-agent run
exec ratchet-agent run
ratchet-agent --session id run
ratchet-agent run --session id
ratchet-agent --root /etc read r 1 csv
ratchet-agent read ../../etc 1 csv
ratchet-agent read /etc/shadow 1 csv
ratchet-agent read r 1 ../../../etc/shadow
ratchet-agent read r;id 1 csv
ratchet-agent read .. 1 sidecar
sudo -n id
scp -f /etc/passwd
rsync --server --sender . /etc
/usr/lib/openssh/sftp-server
internal-sftp""".splitlines(),
    *("", f"sudo -n {SESSION}", "ratchet-agent run\nid", "ratchet-agent read r 1 csv\nid", "ratchet-agent\trun"),
    *(" ratchet-agent run", "ratchet-agent run ", "\u2028ratchet-agent run", "ratchet-agent run" + "x" * 5000),
]


def test_the_key_runs_nothing_but_the_agent(door: Door) -> None:
    for command in COMMANDS:
        done = door.ssh(door.account, command)
        assert (done.returncode, done.stdout) == (2, ""), (command, done)
        assert ALLOWED in done.stderr, command
    told = door.fleet.ssh(door.host, "sudo journalctl -t ratchet-agent --no-pager").stdout
    assert "refused over ssh: 'ratchet-agent run; id'" in told


def test_a_terminal_and_an_environment_get_it_nothing(door: Door) -> None:
    for options in (
        ["-tt"],
        ["-A"],
        ["-X"],
        ["-o", "SetEnv=SSH_ORIGINAL_COMMAND=run LD_PRELOAD=/tmp/x PYTHONINSPECT=1 LC_ALL=x"],
    ):
        done = door.ssh(*options, door.account, "id")
        # A client that insists on a terminal gives up by itself when it gets none.
        refused = (2, ALLOWED) if options != ["-tt"] else (255, "PTY allocation request failed")
        assert done.returncode == refused[0] and refused[1] in done.stdout + done.stderr, (options, done)
        assert "uid=" not in done.stdout


def test_no_file_is_copied_either_way(door: Door, tmp_path: Path) -> None:
    (tmp_path / "planted").write_text("planted\n")
    away, back = (f"{door.account}:/etc/passwd", str(tmp_path / "got")), (str(tmp_path / "planted"), f"{door.account}:")
    for pair in (away, back):
        assert door.run("scp", *pair).returncode != 0
        assert door.run("scp", "-O", *pair).returncode != 0
    assert door.run("sftp", "-b", "-", door.account, stdin="ls /\nget /etc/passwd\n").returncode != 0
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    "forward", ["-L {port}:127.0.0.1:22", "-L {port}:/run/systemd/private", "-D {port}", "-R 0:127.0.0.1:22", "-w 0:0"]
)
def test_it_is_no_tunnel(door: Door, forward: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        *door.options,
        "-o",
        "ExitOnForwardFailure=yes",
        "-N",
        *forward.format(port=f"127.0.0.1:{port}").split(),
        door.account,
    ]
    with subprocess.Popen(
        ["ssh", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ssh:
        got = b""
        for _ in range(20):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as through:
                if "-D" in forward:
                    through.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16")
                through.settimeout(2)
                got = through.recv(64)[2:] if "-D" in forward else through.recv(64)
                got += through.recv(64)
                break
            if ssh.poll() is not None:
                break
            time.sleep(0.1)
        ssh.terminate()
        try:
            _, said = ssh.communicate(timeout=5)
        except subprocess.TimeoutExpired:  # OpenSSH 9.2 may miss a signal just before it waits for its connection
            ssh.kill()
            _, said = ssh.communicate()
    assert b"SSH-" not in got and b"\x05\x00\x00" not in got
    assert b"prohibited" in said or b"fail" in said.lower() or b"refused" in said, said


def test_sudo_grants_one_line(door: Door) -> None:
    listed = door.as_probe("sudo -n -l").stdout
    _, _, granted = listed.partition("may run the following commands")
    lines = [line.strip() for line in granted.splitlines()[1:] if line.strip()]
    assert len(lines) == 1, listed
    assert lines[0].startswith("(root) NOPASSWD: /usr/local/sbin/ratchet-host ^session ")


ROOT_COMMANDS = f"""id
-s
-i
su -
/bin/sh -c id
/usr/local/sbin/ratchet-host
/usr/local/sbin/ratchet-host status
/usr/local/sbin/ratchet-host stage
/usr/local/sbin/ratchet-host rollback --to original
/usr/local/sbin/ratchet-host boot
/usr/local/sbin/ratchet-host session --lease 60
/usr/local/sbin/ratchet-host session --lease 60 --design duet
/usr/local/sbin/ratchet-host session --lease 0 --design duet --bound 60
/usr/local/sbin/ratchet-host session --lease -1 --design duet --bound 60
/usr/local/sbin/ratchet-host session --lease 60 --design duet --bound 99999
/usr/local/sbin/ratchet-host session --lease '60 --design duet --x' --design duet --bound 60
/usr/local/sbin/ratchet-host session --lease 60 --design 'duet|switchback' --bound 60
{SESSION} --run r-1
{SESSION} --run -1 --generation 1
{SESSION} --run r-1 --generation -1
{SESSION} --run 'r-1 --generation 1' --generation 1
{SESSION} --run r-1 --generation 1 --design switchback
{SESSION} --design duet
{SESSION} status
{SESSION}x
'{SESSION}'
LD_PRELOAD=/dev/shm/x.so {SESSION}
PATH=/dev/shm {SESSION}
-E {SESSION}
-u ratchet {SESSION}
-D /etc {SESSION}
-R /etc {SESSION}
-e /etc/shadow
-l -U root""".splitlines()


@pytest.mark.parametrize("command", [*ROOT_COMMANDS, f"{SESSION}'\n--help'"])
def test_sudo_grants_nothing_else(door: Door, command: str) -> None:
    done = door.as_probe(f"sudo -n {command} </dev/null")
    assert done.returncode != 0, done
    assert "uid=" not in done.stdout and '"ok"' not in done.stdout and "root:" not in done.stdout


def test_the_account_changes_neither_its_keys_nor_its_program_nor_what_root_runs(door: Door) -> None:
    writable = door.as_probe(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o -writable ! -type l -print 2>/dev/null"
    ).stdout.split()
    theirs = ("/var/lib/ratchet/probe", "/tmp", "/var/tmp", "/run/lock", "/dev", "/proc", "/sys", "/run/user")  # noqa: S108
    assert [path for path in writable if not path.startswith(theirs)] == []


def new_secrets(fleet: FleetUnderTest) -> dict[str, str]:
    key = (fleet.project / ".ratchet/keys" / fleet.name).read_text().splitlines()
    return {
        "token": fleet.environment["HCLOUD_TOKEN"],
        "database": "planted-database-password-5b1c",
        "other": "planted-other-secret-77aa",
        # Any line of the body; the first holds the format alone.
        "key": key[len(key) // 2],
    }


def holding(secrets: dict[str, str], content: bytes) -> list[str]:
    return [name for name, secret in secrets.items() if secret.encode() in content]


class Watch(threading.Thread):
    """Looks at the arguments of every process that begins meanwhile, and at the environment of Ansible's."""

    def __init__(self, secrets: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._secrets = secrets
        self._before = set(Path("/proc").iterdir())
        self._over = threading.Event()
        self.looked_at: set[str] = set()
        self.found: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.02):
            for folder in set(Path("/proc").iterdir()) - self._before:
                if not folder.name.isdigit():
                    continue
                with contextlib.suppress(OSError):
                    arguments = (folder / "cmdline").read_bytes()
                    content = arguments
                    if b"ansible-playbook" in arguments or arguments.startswith(b"ssh\0"):
                        self.looked_at.add(arguments.split(b"\0")[0].rpartition(b"/")[2].decode())
                        content += (folder / "environ").read_bytes()
                    self.found += [f"{name}: {arguments[:200]!r}" for name in holding(self._secrets, content)]

    def stop(self) -> None:
        self._over.set()
        self.join(5)


def test_a_run_leaves_no_secret_behind(fleet: FleetUnderTest, tmp_path: Path) -> None:
    secrets = new_secrets(fleet)
    for folder in ("tmp", "home", secrets["database"]):
        (tmp_path / folder).mkdir()
    # A project of its own, because its index is another database.
    project = tmp_path / "project"
    shutil.copytree(
        fleet.project, project, symlinks=True, ignore=shutil.ignore_patterns("ratchet.db*", "audit.jsonl", "r-*")
    )
    planted = {
        "RATCHET_DATABASE_URL": f"sqlite:///{tmp_path}/{secrets['database']}/ratchet.db",
        "VAULT_PASSWORD": secrets["other"],
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path / "home"),
    }
    mine = FleetUnderTest(project, fleet.environment | planted)
    timing = {"block_seconds": 0.5, "minimum_pairs": 5, "maximum_pairs": 5, "confirm_pairs": 3}
    mine.write_experiment("secrets", {"min-length": {"nginx_gzip_min_length": 1000}}, timing=timing)
    watch = Watch(secrets)
    watch.start()
    said = [mine.controller("optimize", "--fleet", fleet.name, "--experiment", "secrets", "--output", "json")]
    watch.stop()
    run = json.loads(said[0].stdout)
    more = ["history", f"show {run['run_id']}", "audit", f"status --fleet {fleet.name}"]
    said += [mine.controller(*words.split()) for words in more]
    assert [done.returncode for done in said] == [0] * len(said), said
    assert (tmp_path / secrets["database"] / "ratchet.db").exists()
    assert watch.looked_at >= {"ssh"}
    assert watch.found == []
    assert [name for done in said for name in holding(secrets, (done.stdout + done.stderr).encode())] == []
    key = project / ".ratchet/keys" / fleet.name
    left = [path for root in (project, *tmp_path.glob("[th]*")) for path in root.rglob("*") if path.is_file()]
    found = {path: holding(secrets, path.read_bytes()) for path in left if path != key}
    assert len(found) > 20
    assert {path: names for path, names in found.items() if names} == {}
    for host in fleet.live():
        assert left_on_host(fleet, host, secrets) == ["0"], host


def left_on_host(fleet: FleetUnderTest, host: str, secrets: dict[str, str]) -> list[str]:
    """How many lines of the journal hold one of them, then each file that does; they travel by stdin alone."""
    script = (
        "cat >/dev/shm/patterns; sudo journalctl --no-pager | grep -F -c -f /dev/shm/patterns; "
        "sudo grep -rlsF -f /dev/shm/patterns /etc /home /root /run /tmp /opt /usr/local /var; rm /dev/shm/patterns"
    )
    command = ["ssh", *Door(fleet).options, f"ratchet@{fleet.address(host)}", script]
    patterns = "".join(f"{secret}\n" for secret in secrets.values())
    return subprocess.run(
        command, input=patterns, capture_output=True, text=True, timeout=120, check=False
    ).stdout.split()
