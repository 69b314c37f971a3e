"""What a fleet's folder may be made of: what Ansible would read otherwise than we do is refused."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from controller.adapters.files.earlier_fleet import fleet_with_kept
from controller.adapters.files.hosts_edits import forget_hosts, write_hosts
from controller.adapters.files.kept import check_kept, kept_file, read_kept, with_kept, write_kept_text
from controller.adapters.files.keys import ensure_fleet_key
from controller.adapters.files.known_hosts import KnownHosts
from controller.adapters.files.project_folder import write_project
from controller.adapters.inventory import load_fleet, read_inventory
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project


def _variables(project: Project) -> str:
    """What Ansible makes of the fleet."""
    command = [Path(sys.executable).with_name("ansible-inventory"), "-i", project.inventory("web"), "--host", "web-1"]
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True).stdout


@pytest.fixture(params=["all.yml", "all.yaml", "all.json", "all"])
def plain(request: pytest.FixtureRequest, project: Project) -> Path:
    """A file of settings in the place of the folder, which is plain Ansible."""
    folder = project.inventory("web") / "group_vars"
    shutil.rmtree(folder / "all")
    path: Path = folder / request.param
    path.write_text('{"nginx_worker_connections": 4096, "ratchet": {"trials": {"hosts": 2}}}\n')
    return path


def test_a_file_in_the_place_of_group_vars_all_is_read_as_ansible_reads_it_and_nothing_is_kept_beside_it(
    plain: Path, project: Project
) -> None:
    assert load_fleet(project, "web").settings.trials.hosts == 2
    assert read_inventory(project, "web").hosts["web-1"]["nginx_worker_connections"] == 4096
    with pytest.raises(BadInput, match="what trials keep is written there") as caught:
        check_kept(project, "web")
    assert caught.value.where == str(plain)
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("plain")
def test_what_is_told_to_type_has_ansible_read_the_same_as_before(project: Project) -> None:
    before = _variables(project)
    with pytest.raises(BadInput) as caught:
        check_kept(project, "web")
    subprocess.run(["sh", "-c", caught.value.next_step.partition(" (")[0]], check=True)
    assert "4096" in before
    assert _variables(project) == before


@pytest.mark.usefixtures("plain")
def test_nothing_is_made_beside_such_a_file_that_came_after_the_fleet_was_loaded(project: Project) -> None:
    before = sorted(project.root.rglob("*"))
    for attempt in (
        lambda: write_kept_text(project, "web", "nginx_gzip: true\n"),
        lambda: with_kept(project, "web", parameters={"nginx_gzip": True}, comment="", text=""),
        lambda: check_kept(project, "web"),
        lambda: write_project(project.root, "web", static=True),
        lambda: fleet_with_kept(project, "web", "").__enter__(),
    ):
        with pytest.raises(BadInput, match="group_vars/all"):
            attempt()
    assert sorted(project.root.rglob("*")) == before


def test_a_file_that_ansible_does_not_read_beside_the_folder_keeps_nobody_from_anything(project: Project) -> None:
    path = project.inventory("web") / "group_vars" / "all.yml"
    path.write_text("nginx_worker_connections: 4096\nratchet: {trials: {hosts: 2}}\n")
    assert load_fleet(project, "web").settings.trials.hosts == 0
    write_kept_text(project, "web", with_kept(project, "web", parameters={"nginx_gzip": True}, comment="kept"))
    assert "nginx_gzip" in _variables(project) and "4096" not in _variables(project)


def test_a_fleet_without_group_vars_gets_the_folder_with_the_first_kept_parameter(project: Project) -> None:
    shutil.rmtree(project.inventory("web") / "group_vars")
    load_fleet(project, "web")
    check_kept(project, "web")
    assert not (project.inventory("web") / "group_vars").exists()
    write_kept_text(project, "web", with_kept(project, "web", parameters={"nginx_gzip": True}, comment="kept"))
    assert read_kept(project, "web") == {"nginx_gzip": True}
    assert "nginx_gzip" in _variables(project)


def test_kept_parameters_that_cannot_be_written_are_told_before_and_at_the_commit(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.rmtree(project.inventory("web") / "group_vars")
    monkeypatch.setattr("os.mkdir", full)
    with pytest.raises(HostFailed, match="free space"):
        write_kept_text(project, "web", "nginx_gzip: true\n")
    monkeypatch.setattr("tempfile._mkstemp_inner", full)
    with pytest.raises(HostFailed, match="free space"):
        check_kept(project, "web")
    with pytest.raises(HostFailed, match="free space"):
        with_kept(project, "web", parameters={"nginx_gzip": True}, comment="")


def test_a_check_whether_parameters_can_be_kept_leaves_nothing(project: Project) -> None:
    before = sorted(project.root.rglob("*"))
    check_kept(project, "web")
    assert sorted(project.root.rglob("*")) == before
    kept_file(project, "web").write_text("nginx_gzip: {}\n")
    with pytest.raises(BadInput, match=r"zz-kept\.yml:1"):
        check_kept(project, "web")


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


def _linked(path: Path, shared: Path, text: str) -> Path:
    target = shared / path.name
    target.write_text(text)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return target


def test_what_a_link_leads_to_is_written_and_the_link_stays(project: Project, shared: Path) -> None:
    kept, hosts, known = kept_file(project, "web"), project.inventory("web") / "hosts.yml", project.known_hosts("web")
    _linked(kept, shared, "nginx_gzip: true\n")
    _linked(hosts, shared, hosts.read_text())
    _linked(known, shared, "# ours\n")
    write_kept_text(project, "web", with_kept(project, "web", parameters={"nginx_gzip_comp_level": 5}, comment="k"))
    write_hosts(hosts, "web", {"web-1": "192.0.2.5"}, lambda _: None)
    KnownHosts(known).trust("192.0.2.5", "ssh-ed25519 AAAA")
    assert "nginx_gzip_comp_level: 5" in (shared / kept.name).read_text()
    assert "192.0.2.5" in (shared / hosts.name).read_text()
    assert (shared / known.name).read_text() == "# ours\n192.0.2.5 ssh-ed25519 AAAA\n"
    assert kept.is_symlink() and hosts.is_symlink() and known.is_symlink()
    assert sorted(path.name for path in shared.iterdir()) == ["hosts.yml", "known_hosts", "zz-kept.yml"]


def test_a_forgotten_host_leaves_the_file_that_a_link_leads_to(project: Project, shared: Path) -> None:
    hosts, known = project.inventory("web") / "hosts.yml", project.known_hosts("web")
    _linked(hosts, shared, "all: {hosts: {web-1: {ansible_host: 192.0.2.1}}}\n")
    _linked(known, shared, "192.0.2.1 ssh-ed25519 AAAA\n")
    assert forget_hosts(hosts, "web", ["web-1"], lambda _: None)
    assert KnownHosts(known).forget(["192.0.2.1"])
    assert yaml.safe_load((shared / "hosts.yml").read_text()) == {"all": {"hosts": {}}}
    assert (shared / "known_hosts").read_text() == ""
    assert hosts.is_symlink() and known.is_symlink()


@pytest.mark.parametrize(
    "name",
    [
        "group_vars",
        "group_vars/all",
        "group_vars/all.yml",
        "group_vars/all/ratchet.yml",
        "group_vars/all/nginx.yml",
        "group_vars/all/zz-kept.yml",
        "hosts.yml",
        "known_hosts",
    ],
)
def test_a_link_that_leads_nowhere_is_not_taken_for_nothing(name: str, project: Project) -> None:
    path = project.inventory("web") / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to("/mnt/not-mounted/it")
    with pytest.raises(BadInput, match="is a link to /mnt/not-mounted/it, which is not there") as caught:
        load_fleet(project, "web")
    assert caught.value.where == str(path)


def test_settings_of_ours_in_another_file_are_not_passed_over(project: Project) -> None:
    path = project.inventory("web") / "group_vars/all/nginx.yml"
    path.write_text("nginx_gzip: true\nratchet:\n  trials: {hosts: 1}\n")
    with pytest.raises(BadInput, match="`ratchet` is not read here") as caught:
        load_fleet(project, "web")
    assert caught.value.where == f"{path}:2"


def test_an_editors_lock_is_no_setting(project: Project) -> None:
    (project.inventory("web") / "group_vars/all/.#nginx.yml").symlink_to("me@here.1234:5678")
    load_fleet(project, "web")


def test_a_key_on_a_medium_that_is_away_is_not_replaced(project: Project) -> None:
    path = project.key_file("web")
    path.unlink()
    path.symlink_to("/mnt/not-mounted/web")
    with pytest.raises(BadInput, match="which is not there"):
        ensure_fleet_key(project, "web")
    with pytest.raises(BadInput, match="which is not there"):
        load_fleet(project, "web")
    assert path.is_symlink()


@pytest.mark.parametrize("key", ["~no-such-user/id", "a" * 300])
def test_a_key_that_no_file_can_be_is_told(key: str, project: Project) -> None:
    (project.inventory("web") / "hosts.yml").write_text(
        f"all: {{hosts: {{web-1: {{ansible_host: 192.0.2.1, ansible_ssh_private_key_file: {key}}}}}}}\n"
    )
    with pytest.raises(BadInput):
        load_fleet(project, "web")


@pytest.mark.parametrize("address", ["web..example.com", "a" * 64 + ".example.com"])
def test_an_address_that_none_can_be_is_told_with_its_line(address: str, project: Project) -> None:
    path = project.inventory("web") / "hosts.yml"
    path.write_text(f"all:\n  hosts:\n    web-1: {{ansible_host: {address}}}\n")
    with pytest.raises(BadInput, match="`ansible_host` of host web-1") as caught:
        load_fleet(project, "web")
    assert caught.value.where == f"{path}:3"


def test_two_names_of_one_server_are_refused(project: Project) -> None:
    path = project.inventory("web") / "hosts.yml"
    path.write_text(
        "all:\n  hosts:\n    web-1: {ansible_host: WEB.example.com}\n    web-2: {ansible_host: web.example.com}\n"
    )
    with pytest.raises(BadInput, match="web-1 and web-2 are one server") as caught:
        load_fleet(project, "web")
    assert caught.value.where == f"{path}:4"
    path.write_text(path.read_text().replace("{ansible_host: web.", "{ansible_port: 2222, ansible_host: web."))
    assert [host.port for host in load_fleet(project, "web").hosts] == [22, 2222]
