"""Provisioned hosts come into hosts.yml and go out of it, and what an operator wrote there stays as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from controller.adapters.files.hosts_edits import forget_hosts, write_hosts, written_hosts
from controller.adapters.inventory import load_fleet
from controller.model.errors import BadInput
from controller.model.project import Project

ONE, TWO = {"web-1": "192.0.2.1"}, {"web-1": "192.0.2.1", "web-2": "192.0.2.2"}
# What people write: a variable of one host, a group, another host, and why.
BY_HAND = """\
# Ask Kim before you touch web-1.
all:
  vars:
    ansible_user: kim   # not ratchet
    ntp_server: 192.0.2.123
  hosts:
    web-1:
      ansible_host: 192.0.2.1
      nginx_worker_processes: 2   # the small one
    # In the cellar.
    cellar: {ansible_host: 203.0.113.9, note: "a: b"}

  children:
    canary:
      hosts:
        web-1:
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hosts.yml"


def _nothing_told(text: str) -> None:
    raise AssertionError(text)


def test_a_written_inventory_reads_back_and_is_the_same_the_second_time(project: Project) -> None:
    path = project.inventory("web") / "hosts.yml"
    path.unlink()
    assert write_hosts(path, "web", TWO, _nothing_told)
    text = path.read_text()
    assert not write_hosts(path, "web", TWO, _nothing_told)
    assert path.read_text() == text
    fleet = load_fleet(project, "web")
    assert {host.name: host.address for host in fleet.hosts} == TWO
    assert fleet.hosts[0].key_file.samefile(project.key_file("web"))
    assert fleet.hosts[0].known_hosts == project.known_hosts("web")


def test_an_inventory_that_says_the_same_is_left_as_it_is(path: Path) -> None:
    path.write_text(BY_HAND)
    assert not write_hosts(path, "web", ONE, _nothing_told)
    assert path.read_text() == BY_HAND


def test_a_new_host_is_added_and_no_other_line_moves(path: Path) -> None:
    path.write_text(BY_HAND)
    assert write_hosts(path, "web", TWO, _nothing_told)
    kept = [line for line in path.read_text().splitlines() if line not in BY_HAND.splitlines()]
    assert kept == ["    web-2:", "      ansible_host: 192.0.2.2"]
    assert written_hosts(path) == TWO | {"cellar": "203.0.113.9"}
    assert forget_hosts(path, "web", ["web-2"], _nothing_told)
    assert path.read_text() == BY_HAND


def test_an_address_that_changes_is_told_with_the_one_that_was_there(path: Path) -> None:
    path.write_text(BY_HAND)
    told: list[str] = []
    assert write_hosts(path, "web", {"web-1": "192.0.2.77"}, told.append)
    assert path.read_text() == BY_HAND.replace("192.0.2.1\n", "192.0.2.77\n")
    assert told == ["web-1: hosts.yml said 192.0.2.1, the cloud says 192.0.2.77: changed"]


def test_a_deleted_host_leaves_every_group_and_the_rest_stays(path: Path) -> None:
    path.write_text(BY_HAND)
    assert forget_hosts(path, "web", ["web-1"], _nothing_told)
    assert not forget_hosts(path, "web", ["web-1"], _nothing_told)
    assert list(written_hosts(path)) == ["cellar"]
    for words in ("# Ask Kim", "ntp_server", "canary:", "# In the cellar."):
        assert words in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "all: {hosts: {web-1: {ansible_host: 192.0.2.1, a: 1}}, children: {canary: {hosts: {web-1: }}}}\n",
        "all:\n  hosts: &every\n    web-1: {ansible_host: 192.0.2.1, a: 1}\n  children: {canary: {hosts: *every}}\n",
    ],
)
def test_where_the_text_cannot_be_edited_all_that_it_says_stays_and_a_copy_is_kept(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    told: list[str] = []
    assert write_hosts(path, "web", TWO, told.append)
    said = yaml.safe_load(path.read_text())
    assert said["all"]["hosts"]["web-1"] == {"ansible_host": "192.0.2.1", "a": 1}
    assert said["all"]["hosts"]["web-2"] == {"ansible_host": "192.0.2.2"}
    assert "web-1" in said["all"]["children"]["canary"]["hosts"]
    kept = path.with_name("hosts.yml.bak")
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (text, 0o600)
    assert "hosts.yml is written anew" in told[0] and str(kept) in told[0]


def test_an_inventory_of_nothing_but_deleted_hosts_is_removed(path: Path) -> None:
    write_hosts(path, "web", TWO, _nothing_told)
    assert forget_hosts(path, "web", ["web-1"], _nothing_told)
    assert list(written_hosts(path)) == ["web-2"]
    assert forget_hosts(path, "web", ["web-2"], _nothing_told)
    assert not path.exists()
    assert not forget_hosts(path, "web", ["web-2"], _nothing_told)


def test_an_empty_inventory_gets_what_a_connection_needs(path: Path) -> None:
    path.write_text("all: {hosts: {}, vars: {ansible_user: kim}}\n")
    assert write_hosts(path, "web", ONE, lambda _: None)
    said = yaml.safe_load(path.read_text())["all"]
    assert said["vars"]["ansible_user"] == "kim"
    assert said["vars"]["ansible_ssh_private_key_file"].endswith(".ratchet/keys/web")
    assert said["hosts"] == {"web-1": {"ansible_host": "192.0.2.1"}}


@pytest.mark.parametrize(
    ("text", "complaint", "line"),
    [
        ("all:\n  hosts: [web-1, web-2]\n", "`all.hosts` must be a mapping, found a list", 2),
        ("all:\n  children:\n    edge: {host: {}}\n", "unknown field `all.children.edge.host` in a group", 3),
        ("all:\n  hosts:\n    web-1: 192.0.2.1\n", "`all.hosts.web-1` must be a mapping", 3),
    ],
)
def test_a_file_that_is_no_list_of_groups_is_not_edited(path: Path, text: str, complaint: str, line: int) -> None:
    path.write_text(text)
    for edit in (
        lambda: write_hosts(path, "web", ONE, _nothing_told),
        lambda: forget_hosts(path, "web", ["web-1"], _nothing_told),
    ):
        with pytest.raises(BadInput) as caught:
            edit()
        assert complaint in caught.value.what
        assert caught.value.where == f"{path}:{line}"
    assert path.read_text() == text


def test_ranges_of_an_operator_stay_beside_a_new_host(path: Path) -> None:
    path.write_text("all:\n  hosts:\n    cellar[01:20]:\n      ansible_user: kim\n")
    assert write_hosts(path, "web", ONE, _nothing_told)
    assert yaml.safe_load(path.read_text())["all"]["hosts"] == {
        "cellar[01:20]": {"ansible_user": "kim"},
        "web-1": {"ansible_host": "192.0.2.1"},
    }
