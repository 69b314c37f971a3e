"""A fleet is what Ansible makes of its folder, however an operator has written it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from controller.adapters.inventory import load_fleet, read_inventory, reading
from controller.model.errors import BadInput
from controller.model.fleet import Host
from controller.model.project import Project

BIN = Path(sys.executable).parent
DYNAMIC = """\
#!/bin/sh
echo asked >> "$(dirname "$0")/../asked"
echo '{"edge": {"hosts": ["web-8"], "vars": {"ansible_port": 2208}},
  "_meta": {"hostvars": {"web-8": {"ansible_host": "192.0.2.8"}}}}'
"""
# Form -> the files of the fleet's folder.
FORMS: dict[str, dict[str, str]] = {
    "host_vars and group_vars beside the names": {
        "hosts.yml": "all: {hosts: {web-1: }}",
        "host_vars/web-1.yml": "{ansible_host: 192.0.2.1, ansible_port: 2222}",
        "group_vars/all/connection.yml": "ansible_user: deploy",
    },
    "INI, with ranges": {
        "hosts": """\
            [edge]
            web[01:03].example.com ansible_user=kim
            db-[a:b] ansible_host=192.0.2.9 ansible_port=2210 ansible_user=eve
            [core]
            db-b ansible_port=2211
            [edge:vars]
            ansible_port=2201
            """,
    },
    "YAML, with ranges": {"hosts.yml": "all: {hosts: {'web-[1:3]': {ansible_user: kim}}}"},
    "child groups over their parents, and deeper files over shallower": {
        "hosts.yml": """\
            all:
              vars: {ansible_port: 1, ansible_user: everybody}
              children:
                edge:
                  vars: {ansible_port: 2}
                  children: {north: {hosts: {web-1: {}, web-2: {ansible_port: 5}, web-3: {}}}}
                core: {hosts: {web-4: {}}}
            """,
        "group_vars/edge.yml": "ansible_user: edge",
        "group_vars/north/one.yml": "ansible_port: 4",
        "group_vars/north/two.yml": "{ansible_user: north, ansible_port: 6}",
        "host_vars/web-3/own.yml": "ansible_user: web",
    },
    "several files, which are read in the order of their names": {
        "a.yml": "all: {vars: {ansible_port: 2201, ansible_user: all}, hosts: {web-1: {ansible_host: 192.0.2.1}}}",
        "b.ini.hosts": "web-1 ansible_user=kim\nweb-2 ansible_host=192.0.2.2\n",
        "more/c.yml": "edge: {hosts: {web-2: {ansible_user: more}}}",
    },
    "a dynamic inventory": {"servers": DYNAMIC, "hosts.yml": "edge: {vars: {ansible_user: kim}, hosts: {web-1: }}"},
    "templates": {
        "hosts.yml": """\
            all:
              vars:
                ansible_host: "{{ inventory_hostname_short }}.{{ domain }}"
                ansible_port: "{{ ports[site] | default(2200) }}"
                ansible_user: "{{ 'kim' if 'edge' in group_names else groups['edge'] | length }}"
                domain: "{{ site }}.example.com"
                site: north
                ports: {north: 2201}
              children:
                edge: {hosts: {web-1.old: }}
                core: {hosts: {web-2: {site: south}}}
            """,
    },
}


def write(project: Project, files: dict[str, str]) -> None:
    (project.inventory("web") / "hosts.yml").unlink(missing_ok=True)
    for name, text in files.items():
        path = project.inventory("web") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        if text.startswith("#!"):
            path.chmod(0o755)


def ansible(project: Project, program: str, *words: str) -> str:
    environment = os.environ | {"ANSIBLE_CONFIG": str(project.root / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
    command = [BIN / program, "-i", project.inventory("web"), *words]
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def as_ansible_connects(project: Project) -> dict[str, tuple[str, int, str]]:
    """Host -> address, port, user: as a task has them, its templates evaluated."""
    words = "{{ ansible_host | default(inventory_hostname) }} {{ ansible_port | default(22) }} {{ ansible_user }}"
    said = ansible(project, "ansible", "all", "-m", "debug", "-a", f"msg='{words}'", "-o")
    found: dict[str, tuple[str, int, str]] = {}
    for line in said.splitlines():
        host, _, result = line.partition(" | SUCCESS => ")
        address, port, user = json.loads(result)["msg"].split(" ")
        found[host] = (address, int(port), user)
    return found


def as_controller_connects(project: Project) -> dict[str, tuple[str, int, str]]:
    return {host.name: (host.address, host.port, host.admin_user) for host in load_fleet(project, "web").hosts}


@pytest.fixture
def project(project: Project) -> Project:
    # Nothing but the inventory has a say.
    (project.root / "ansible.cfg").write_text("[inventory]\nignore_patterns = ^known_hosts$\n")
    return project


@pytest.mark.parametrize("form", FORMS)
def test_hosts_are_reached_where_and_as_whom_ansible_reaches_them(project: Project, form: str) -> None:
    write(project, FORMS[form])
    inventory = read_inventory(project, "web")
    last = list(inventory.hosts)[-1]
    assert inventory.hosts[last] == json.loads(ansible(project, "ansible-inventory", "--host", last))
    assert as_controller_connects(project) == as_ansible_connects(project)


def test_a_command_asks_once_as_long_as_the_files_are_the_same(project: Project) -> None:
    write(project, {"servers": DYNAMIC})
    for _ in range(3):
        load_fleet(project, "web")
    asked = project.root / "inventory/asked"
    assert asked.read_text() == "asked\n"
    write(project, {"host_vars/web-8.yml": "ansible_user: kim"})
    assert load_fleet(project, "web").hosts[0].admin_user == "kim"
    assert asked.read_text() == "asked\nasked\n"


def test_a_vault_is_opened_by_its_password_file_and_a_missing_one_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    (project.root / "password").write_text("x\n")
    write(project, {"hosts.yml": "all: {hosts: {web-1: }}", "group_vars/all/secret.yml": "ansible_user: kim"})
    secret = project.inventory("web") / "group_vars/all/secret.yml"
    command = [BIN / "ansible-vault", "encrypt", "--vault-password-file", project.root / "password", secret]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(BadInput, match="no vault secrets") as caught:
        load_fleet(project, "web")
    assert caught.value.where == str(secret)
    assert "ANSIBLE_VAULT_PASSWORD_FILE" in caught.value.next_step
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(project.root / "password"))
    assert load_fleet(project, "web").hosts[0].admin_user == "kim"
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE")
    (project.root / "ansible.cfg").write_text("[defaults]\nvault_password_file = password\n")
    assert load_fleet(project, "web").hosts[0].admin_user == "kim"


@pytest.mark.parametrize("locale", ["C", "xx_XX.ISO-8859-1"])
def test_what_is_set_in_the_shell_changes_neither_hosts_nor_answers(
    project: Project, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    for name, value in {
        "ANSIBLE_INVENTORY": "/nowhere",
        "ANSIBLE_INVENTORY_EXPORT": "True",
        "ANSIBLE_VERBOSITY": "4",
        "ANSIBLE_DEBUG": "1",
        "HCLOUD_TOKEN": "planted-secret",
    }.items():
        monkeypatch.setenv(name, value)
    write(
        project, {"servers": DYNAMIC.replace("asked >>", '"$HCLOUD_TOKEN" >>'), "group_vars/edge.yml": "place: höhle"}
    )
    assert read_inventory(project, "web").hosts["web-8"]["place"] == "höhle"
    assert (project.root / "inventory/asked").read_text() == "\n"


@pytest.mark.parametrize(
    ("files", "place", "words"),
    [
        (
            {"hosts.yml": "all: {hosts: {web-1: }}", "group_vars/all/x.yml": "a: 1\nb: [\n"},
            "group_vars/all/x.yml:3",
            "YAML",
        ),
        ({"hosts.yml": "all: {hosts: [web-1]}"}, "hosts.yml", "requires a dictionary"),
        ({"hosts.yml": "all: {hosts: {web-1: }}", "more": "[edge]\nweb-2 not an assignment\n"}, "more", "got: not"),
        ({"servers": "#!/bin/sh\necho no token >&2; exit 3\n"}, "servers", "the script wrote: no token"),
        ({"servers": "#!/bin/sh\necho nonsense\n"}, "servers", "Failed to parse"),
    ],
)
def test_what_ansible_cannot_read_is_told_in_its_words_with_the_file(
    project: Project, files: dict[str, str], place: str, words: str
) -> None:
    write(project, files)
    with pytest.raises(BadInput) as caught:
        load_fleet(project, "web")
    assert caught.value.where == str(project.inventory("web") / place)
    assert words in caught.value.what
    assert "ansible-inventory -i inventory/web --list" in caught.value.next_step
    assert caught.value.exit_code == 2


def test_hosts_are_known_where_only_a_file_of_variables_is_damaged(project: Project) -> None:
    write(project, {"hosts.yml": "all: {hosts: {web-1: }}", "group_vars/all/x.yml": "a: [\n"})
    assert list(read_inventory(project, "web", variable_files=False).hosts) == ["web-1"]


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ("ansible_connection: local", "`ansible_connection` of host web-1 is local"),
        ("ansible_connection: paramiko", "`ansible_connection` of host web-1 is paramiko"),
        ("ansible_ssh_executable: /usr/bin/plink", "is /usr/bin/plink: the controller knows OpenSSH's `ssh` only"),
        ("ansible_password: x", "`ansible_password` of host web-1 is a password"),
        ("ansible_user: 5", "`ansible_user` of host web-1 must be text"),
        ("ansible_port: 70000", "must be a port, 1 to 65535"),
        ("ansible_ssh_common_args: -o 'X", "cannot be split into words"),
        (
            "ansible_ssh_extra_args: -o BindAddress=192.0.2.3",
            "`ansible_ssh_extra_args` of host web-1 .* uses BindAddress",
        ),
        ("ansible_ssh_common_args: -o CertificateFile=x", "uses CertificateFile"),
        ("ansible_ssh_common_args: -o NoSuchOption=x", "refused by ssh: .*nosuchoption"),
        ("ansible_ssh_common_args: -F /no/such/file", "refused by ssh: .*/no/such/file"),
        ("ansible_ssh_common_args: -o ProxyCommand='nc %k'", "uses %k in ProxyCommand"),
        ("{ansible_host: 'x;reboot', ansible_ssh_common_args: -J b}", "into a shell's command|invalid characters"),
        ('ansible_host: \'{{ lookup("file", "x") }}\'', "uses lookup..file.., which only Ansible evaluates"),
        ("ansible_host: '{{ ansible_facts.fqdn }}'", "'ansible_facts' is undefined"),
        ("ansible_host: '{{ ansible_host }}'", "refers to itself"),
        ("ansible_host: !vault $ANSIBLE_VAULT;1.1;AES256", "is encrypted by itself"),
    ],
)
def test_what_the_controllers_ssh_cannot_follow_is_refused_by_name(
    project: Project, variables: str, complaint: str
) -> None:
    write(project, {"hosts.yml": "all: {hosts: {web-1: }}", "host_vars/web-1.yml": f"# ours\n{variables}\n"})
    with pytest.raises(BadInput, match=complaint) as caught:
        load_fleet(project, "web")
    assert caught.value.where == f"{project.inventory('web')}/host_vars/web-1.yml:2"


def reached(project: Project, **variables: str) -> Host:
    write(project, {"hosts.yml": json.dumps({"all": {"hosts": {"web-1": variables}}})})
    (host,) = load_fleet(project, "web").hosts
    return host


def test_arguments_of_ssh_count_for_the_controller_too(project: Project) -> None:
    arguments = "-o HostName=192.0.2.7 -p 2022 -l kim -o HostKeyAlias=cellar -o ServerAliveInterval=5 -C"
    host = reached(project, ansible_ssh_extra_args=arguments)
    assert (host.address, host.port, host.admin_user, host.known_as) == ("192.0.2.7", 2022, "kim", "cellar")
    host = reached(project, ansible_ssh_common_args=arguments, ansible_port="2201", ansible_user="eve")
    assert (host.port, host.admin_user) == (2201, "eve"), "Ansible puts its own options in front of these"
    host = reached(project, ansible_ssh_args=arguments, ansible_port="2201", ansible_user="eve")
    assert (host.port, host.admin_user) == (2022, "kim"), "and behind those"


def test_a_key_is_the_variables_else_that_of_the_arguments_else_the_fleets(project: Project) -> None:
    named, variables = project.root / "named", project.root / "variables"
    for path in (named, variables):
        path.touch(mode=0o600)
    assert reached(project).key_file == project.key_file("web")
    assert reached(project, ansible_ssh_common_args=f"-i {named}").key_file == named
    both = {
        "ansible_ssh_common_args": f"-i {named}",
        "ansible_ssh_private_key_file": "{{ inventory_dir | dirname }}/../variables",
    }
    assert reached(project, **both).key_file.samefile(variables)


def test_settings_of_ansible_cfg_and_of_the_shell_count_where_no_variable_does(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "ansible.cfg").write_text("[defaults]\nremote_user = kim\nremote_port = 2022 ; ours\n")
    assert (reached(project).admin_user, reached(project).port) == ("kim", 2022)
    monkeypatch.setenv("ANSIBLE_REMOTE_USER", "eve")
    assert reached(project).admin_user == "eve"
    assert reached(project, ansible_user="adam").admin_user == "adam"


def test_a_jump_host_is_gone_through_as_ssh_itself_would(project: Project) -> None:
    config = project.root / "ssh config"
    config.write_text("Host web-1\n  HostName 192.0.2.7\n  ProxyJump kim@first:2022,second\n")
    host = reached(project, ansible_ssh_common_args=f"-F '{config}'")
    assert host.address == "192.0.2.7"
    command = host.proxy.partition(" && exec ")[2]
    assert command.endswith(f"-F '{config}' -J kim@first:2022 -W '[192.0.2.7]:22' -- ssh://second")
    assert host.proxy.startswith(f"cd {project.root} && ")
    proxied = reached(project, ansible_ssh_common_args="-o ProxyCommand='nc -X 5 %h %p'", ansible_port="2201")
    assert proxied.proxy == f"cd {project.root} && exec nc -X 5 web-1 2201"


def test_what_ansible_warns_of_is_kept_for_the_operator(project: Project) -> None:
    write(project, {"hosts.yml": "all: {hosts: {web-1: }, children: {edge: {host: {web-2: }}}}"})
    assert "unexpected key (host)" in read_inventory(project, "web").warnings


def test_variables_beside_the_playbooks_count_as_they_do_in_a_playbook(project: Project) -> None:
    (project.root / "playbooks/group_vars").mkdir(parents=True)
    (project.root / "playbooks/group_vars/all.yml").write_text("ansible_user: kim\n")
    assert reached(project).admin_user == "kim"


def test_an_inventory_that_keeps_silent_is_given_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, {"servers": "#!/bin/sh\nsleep 60\n"})
    monkeypatch.setattr(reading, "ANSWER_SECONDS", 3)
    began = time.monotonic()
    with pytest.raises(BadInput, match="no answer within 3 s"):
        load_fleet(project, "web")
    assert time.monotonic() - began < 30


def test_a_folder_is_a_fleet_whatever_its_inventory_is_written_in(project: Project) -> None:
    shutil.rmtree(project.inventory("web") / "group_vars")
    write(project, {"hosts": "web-1\n"})
    beside = project.root / "inventory/group_vars"
    beside.mkdir()
    (beside / "all.yml").write_text("a: 1\n")
    (project.root / "inventory/notes").mkdir()
    assert project.fleets() == ["web"]
    assert [host.name for host in load_fleet(project, "web").hosts] == ["web-1"]
