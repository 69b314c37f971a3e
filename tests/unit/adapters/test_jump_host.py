"""A host that is reached through another: by the controller's own SSH as by the `ssh` that Ansible starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from controller.adapters.files.keys import generate_key
from controller.adapters.inventory import load_fleet
from controller.adapters.ssh import ask, connect
from controller.model.errors import HostFailed
from controller.model.fleet import Host
from controller.model.project import Project
from tests.unit.adapters.ssh_server import ssh_server

# Nobody but the jump host knows it.
INSIDE = "inside.invalid"


@pytest.fixture
def config(project: Project) -> Iterator[Path]:
    """The configuration of `ssh` that knows `bastion`, which leads to web-1 and takes another key than the fleet's."""
    home = project.root
    # A connection that Ansible keeps would outlive its test, and lead the next one to a server that is gone.
    (home / "ansible.cfg").write_text("[ssh_connection]\nssh_args = -o ControlMaster=no\nusetty = False\n")
    (host_key, host_public), (jump_key, jump_public), (own_key, own_public) = (generate_key(name) for name in "abc")
    for name, text in {"host": host_key, "jump": jump_key, "own key": own_key}.items():
        (home / name).write_text(text)
        (home / name).chmod(0o600)
    fleets = project.key_file("web").with_name("web.pub").read_text().split()
    with (
        ssh_server(paramiko.PKey.from_path(home / "host"), " ".join(fleets[:2])) as inner,
        ssh_server(paramiko.PKey.from_path(home / "jump"), " ".join(own_public.split()[:2]), leads_to=inner) as jump,
    ):
        project.known_hosts("web").write_text(f"{INSIDE} {host_public}")
        (home / "jumps known").write_text(f"[127.0.0.1]:{jump} {jump_public}")
        path = home / "ssh_config"
        path.write_text(
            f"Host bastion\n HostName 127.0.0.1\n Port {jump}\n User ratchet\n IdentityFile '{home}/own key'\n"
            f" UserKnownHostsFile '{home}/jumps known'\n IdentitiesOnly yes\n"
        )
        yield path


def fleet_behind(project: Project, arguments: str) -> Host:
    (project.inventory("web") / "hosts.yml").write_text(
        "all:\n  vars:\n    ansible_user: ratchet\n"
        f"    ansible_ssh_private_key_file: '{project.key_file('web')}'\n"
        f"    ansible_ssh_extra_args: -o 'UserKnownHostsFile=\"{project.known_hosts('web')}\"'\n"
        f'    ansible_ssh_common_args: "{arguments}"\n'
        f"  hosts: {{web-1: {{ansible_host: {INSIDE}}}}}\n"
    )
    (host,) = load_fleet(project, "web").hosts
    return host


@pytest.mark.parametrize(
    "arguments",
    ["-F '{config}' -o ProxyJump=bastion", "-F '{config}' -J bastion", "-F '{config}.direct'"],
)
def test_it_answers_the_controller_as_it_answers_ansible(project: Project, config: Path, arguments: str) -> None:
    # What people have in ~/.ssh/config.
    config.with_name("ssh_config.direct").write_text(
        f"Host {INSIDE}\n ProxyCommand ssh -F '{config}' -W %h:%p bastion\n"
    )
    host = fleet_behind(project, arguments.format(config=config))
    command = [Path(sys.executable).with_name("ansible"), "-i", project.inventory("web"), "all"]
    words = ["-m", "ansible.builtin.raw", "-a", "true"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(project.root / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
    said = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "web-1 | CHANGED | rc=0" in said.stdout, said.stdout + said.stderr
    assert ask(host, host.admin_user, "echo out; echo err >&2; exit 3", timeout=20) == (3, "out\n", "err\n")


def test_its_line_ends_with_the_connection_and_ctrl_c_does_not_cut_it(project: Project, config: Path) -> None:
    host = fleet_behind(project, f"-F '{config}' -J bastion")
    with connect(host, host.admin_user) as connection:
        (line,) = _lines()
        assert os.getsid(line) != os.getsid(0)
        assert connection.run("echo here", timeout=20)[1] == "here\n"
    assert _lines() == []


def test_a_host_key_that_is_not_known_is_told_by_the_hosts_own_name(project: Project, config: Path) -> None:
    host = fleet_behind(project, f"-F '{config}' -J bastion")
    project.known_hosts("web").write_text("")
    with pytest.raises(HostFailed, match="is not in known_hosts") as caught:
        ask(host, host.admin_user, "true", timeout=20)
    assert f"add `{INSIDE} ssh-ed25519 " in caught.value.next_step


def test_a_jump_host_that_refuses_is_told_in_sshs_own_words(project: Project, config: Path) -> None:
    host = fleet_behind(project, f"-F '{config}' -J bastion")
    (project.root / "jumps known").write_text("")
    with pytest.raises(HostFailed, match="Host key verification failed") as caught:
        ask(host, host.admin_user, "true", timeout=20, attempts=1)
    assert "behind a jump host" in caught.value.where
    assert host.proxy in caught.value.next_step
    assert _lines() == []


def _lines() -> list[int]:
    """Commands that lead to a host, of this process."""
    said = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in said.stdout.splitlines() if "ssh" in line.split()[1:2]]
