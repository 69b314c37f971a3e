"""From settings to trusted, set-up hosts, through the cloud's own API; again, after failures, and back to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hcloud.firewalls import FirewallRule

from controller.adapters.files.hosts_edits import forget_hosts
from controller.adapters.files.keys import HostSeeds, generate_key
from controller.adapters.files.known_hosts import KnownHosts
from tests.integration.provision.conftest import Site

pytestmark = pytest.mark.lab


def _ansible(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), "-i", "inventory/web", *words[1:]],
        cwd=site.project.root,
        env=os.environ | site.lab.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_first_run_creates_the_second_changes_nothing_and_says_so(site: Site) -> None:
    first = site.controller("provision", "--fleet", "web", "--output", "json")
    assert first.code == 0, first.err
    (host,) = first.document["hosts"]
    assert first.document["changed"]
    assert (host["name"], host["type"], host["created"], host["state"]) == ("web-1", "cx23", True, "ready")
    assert any("cx22 is no longer sold: taking its successor cx23" in notice for notice in first.document["notices"])
    assert "web-1: waiting for cloud-init" in first.err
    server = site.servers()["web-1"]
    assert server.labels == {"ratchet-fleet": "web", "purpose": "test"}
    before = site.files()
    second = site.controller("provision", "--fleet", "web")
    assert second.code == 0, second.err
    assert "nothing changed: fleet web is as its settings say" in second.out
    assert site.files() == before
    assert list(site.servers()) == ["web-1"]


def test_plain_ansible_reaches_the_hosts_with_the_written_inventory(provisioned: Site) -> None:
    done = _ansible(provisioned, "ansible", "all", "-m", "ansible.builtin.command", "-a", "cat /etc/ratchet-mark")
    assert done.returncode == 0, done.stderr
    assert "set up" in done.stdout
    assert "WARNING" not in done.stderr


def test_the_host_key_of_the_user_data_is_replaced_and_no_seed_stays(provisioned: Site) -> None:
    seeds = HostSeeds(provisioned.project, "web")
    assert seeds.seed("web-1") == ""
    known = KnownHosts(provisioned.project.known_hosts("web"))
    address = provisioned.servers()["web-1"].public_net.ipv4.ip
    done = _ansible(
        provisioned,
        "ansible",
        "all",
        "-b",
        "-m",
        "ansible.builtin.shell",
        "-a",
        "cat /etc/ssh/ssh_host_ed25519_key.pub; echo; grep -h ed25519_public /var/lib/cloud/instance/user-data.txt",
    )
    shown, born = done.stdout.split("ed25519_public: ")
    assert known.key_of(address) in shown
    assert known.key_of(address) not in born


def test_a_crash_between_the_hosts_new_key_and_our_note_of_it_is_mended(provisioned: Site) -> None:
    known = KnownHosts(provisioned.project.known_hosts("web"))
    address = provisioned.servers()["web-1"].public_net.ipv4.ip
    key = known.key_of(address)
    seeds = HostSeeds(provisioned.project, "web")
    _, seed = seeds.create("web-1")
    seeds.announce("web-1", key)
    known.trust(address, seed)
    answer = provisioned.controller("provision", "--fleet", "web")
    assert answer.code == 0, answer.err
    assert known.key_of(address) == key
    assert seeds.seed("web-1") == ""


def test_a_wrong_host_key_is_never_trusted(provisioned: Site) -> None:
    known = KnownHosts(provisioned.project.known_hosts("web"))
    address = provisioned.servers()["web-1"].public_net.ipv4.ip
    key, other = known.key_of(address), generate_key("other")[1]
    known.trust(address, other)
    try:
        for words in (["provision"], ["optimize", "--dry-run"]):
            answer = provisioned.controller(words[0], "--fleet", "web", *words[1:])
            assert answer.code == 3
            assert "WRONG HOST KEY" in answer.err
            assert "web-1" in answer.err
            assert known.key_of(address) == " ".join(other.split()[:2])
        known.path.write_text("")
        answer = provisioned.controller("provision", "--fleet", "web")
        assert answer.code == 3
        assert "trust on first use is not an option" in answer.err
    finally:
        known.trust(address, key)


def test_a_host_that_fails_is_named_the_others_are_ready_and_a_second_run_goes_on(provisioned: Site) -> None:
    provisioned.settings(count=2)
    session = provisioned.lab.session
    session.fault("error", method="POST", path="/servers", code="resource_limit_exceeded", message="server limit")
    answer = provisioned.controller("provision", "--fleet", "web", "--output", "json")
    assert answer.code == 3
    states = {host["name"]: host["state"] for host in answer.document["hosts"]}
    assert states == {"web-1": "ready", "web-2": "failed"}
    assert "creating web-2: server limit" in answer.err
    session.clear_faults()
    # What may pass by itself does; the second preference is taken when the first is out of stock.
    session.fault("error", method="GET", path="/servers", code="service_error", times=1)
    session.fault("unavailable", server_type="cx23", location="fsn1")
    answer = provisioned.controller("provision", "--fleet", "web", "--output", "json")
    assert answer.code == 0, answer.err
    second = answer.document["hosts"][1]
    assert (second["name"], second["location"], second["created"]) == ("web-2", "nbg1", True)
    assert provisioned.project.known_hosts("web").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("token", "complaint"),
    [("wrong", "the API refuses the token"), ("readonly-token", "the token may only read")],
)
def test_a_wrong_or_read_only_token_changes_nothing(site: Site, token: str, complaint: str) -> None:
    site.settings("other")
    answer = site.controller("provision", "--fleet", "other", HCLOUD_TOKEN=token)
    assert answer.code == 2
    assert complaint in answer.err
    assert token not in answer.err
    assert "next: " in answer.err
    assert site.servers("other") == {}


def test_what_only_happens_to_have_our_name_is_left_alone(site: Site) -> None:
    site.settings("stranger")
    firewall = site.lab.client.firewalls.create(name="stranger").firewall
    answer = site.controller("provision", "--fleet", "stranger")
    assert answer.code == 2
    assert "the firewall stranger exists in the project, but is not this fleet's" in answer.err
    assert site.controller("destroy", "--fleet", "stranger", "--yes").code == 0
    assert site.lab.client.firewalls.get_by_name("stranger") is not None
    firewall.delete()


def test_an_unknown_server_type_and_an_empty_stock_are_told(site: Site) -> None:
    site.settings("other", prefer=[{"type": "cpx222", "location": "fsn1"}])
    answer = site.controller("provision", "--fleet", "other")
    assert answer.code == 2
    assert "unknown server type cpx222" in answer.err
    assert "did you mean cpx22?" in answer.err
    site.settings("other", prefer=[{"type": "cx23", "location": "fsn1"}])
    site.lab.session.fault("unavailable", server_type="cx23", location="fsn1")
    answer = site.controller("provision", "--fleet", "other")
    site.lab.session.clear_faults()
    assert answer.code == 3
    assert "none of the preferred servers can be had now: cx23 in fsn1" in answer.err


def test_what_was_added_by_hand_to_the_inventory_stays(provisioned: Site) -> None:
    hosts, known = provisioned.project.inventory("web") / "hosts.yml", provisioned.project.known_hosts("web")
    forget_hosts(hosts, "web", ["web-2"], print)
    before = hosts.read_text()
    by_hand = before.replace("    web-1:\n", "    # the small one\n    web-1:\n      nginx_worker_processes: 2\n")
    by_hand += "  children:\n    canary: {hosts: {web-1: }}\n"
    hosts.write_text(by_hand)
    with known.open("a") as file:
        file.write("bastion.example ssh-ed25519 AAAA\n")
    keys = known.read_text()
    provisioned.settings(count=2)
    try:
        answer = provisioned.controller("provision", "--fleet", "web")
        assert answer.code == 0, answer.err
        text = hosts.read_text()
        added = [line for line in text.splitlines() if line not in by_hand.splitlines()]
        assert added[0] == "    web-2:"
        assert len(added) == 2
        assert known.read_text().startswith(keys)
        answer = provisioned.controller("provision", "--fleet", "web")
        assert answer.code == 0, answer.err
        assert "nothing changed" in answer.out
        assert hosts.read_text() == text
    finally:
        hosts.write_text(before)
        known.write_text(known.read_text().replace("bastion.example ssh-ed25519 AAAA\n", ""))


def test_rules_of_others_stay_and_what_closes_is_asked_for(provisioned: Site) -> None:
    client = provisioned.lab.client
    firewall = client.firewalls.get_by_name("web")
    rules = firewall.rules
    extra = FirewallRule(direction="in", protocol="tcp", port="9100", source_ips=["198.51.100.7/32"])

    def ports() -> dict[str | None, list[str]]:
        return {rule.port: rule.source_ips for rule in client.firewalls.get_by_name("web").rules}

    for action in firewall.set_rules([*rules, extra]):
        action.wait_until_finished()
    try:
        answer = provisioned.controller("provision", "--fleet", "web")
        assert answer.code == 0, answer.err
        assert "keeps the rules that others have made: tcp 9100 from 198.51.100.7/32" in answer.err
        assert ports()["9100"] == ["198.51.100.7/32"]
        # The lab's hosts are reached from this network.
        provisioned.settings(ssh_sources=["10.0.0.0/8"])
        answer = provisioned.controller("provision", "--fleet", "web")
        assert answer.code == 2
        assert "would close what is open now: tcp 22 from anywhere; no rule was changed" in answer.err
        assert "--close-ports" in answer.err
        assert ports()["22"] == ["0.0.0.0/0", "::/0"]
        answer = provisioned.controller("provision", "--fleet", "web", "--close-ports")
        assert answer.code == 0, answer.err
        assert "closes: tcp 22 from anywhere" in answer.err
        assert ports()["22"] == ["10.0.0.0/8"]
        assert ports()["9100"] == ["198.51.100.7/32"]
    finally:
        for action in client.firewalls.get_by_name("web").set_rules(rules):
            action.wait_until_finished()


@pytest.mark.parametrize("code", ["timeout", "server_error"])
def test_what_was_created_by_a_request_whose_answer_was_lost_is_found_and_taken(site: Site, code: str) -> None:
    """By the SDK, which sends a request again that has timed out, and by us."""
    fleet = f"lost-{code.replace('_', '-')}"
    site.settings(fleet)
    for path in ("/servers", "/firewalls", "/ssh_keys", "/placement_groups"):
        site.lab.session.fault("lost_answer", method="POST", path=path, code=code, times=1)
    site.lab.session.fault("lost_answer", method="DELETE", path="/(servers|ssh_keys)/.*", code=code, times=2)
    try:
        answer = site.controller("provision", "--fleet", fleet, "--output", "json")
        assert answer.code == 0, answer.err
        (host,) = answer.document["hosts"]
        assert (host["name"], host["state"]) == (f"{fleet}-1", "ready")
        assert list(site.servers(fleet)) == [f"{fleet}-1"]
        for kind in ("firewalls", "ssh_keys", "placement_groups"):
            found = getattr(site.lab.client, kind).get_all(label_selector=f"ratchet-fleet={fleet}")
            assert len(found) == 1, kind
    finally:
        answer = site.controller("destroy", "--fleet", fleet, "--yes")
        site.lab.session.clear_faults()
    assert answer.code == 0, answer.err
    assert site.servers(fleet) == {}
    assert not (site.project.inventory(fleet) / "hosts.yml").exists()


def test_a_project_without_the_fleet_forgets_nothing_of_it(provisioned: Site) -> None:
    """As another project's token: the API has nothing with the fleet's label."""
    servers = provisioned.servers().values()
    before = provisioned.files()
    for server in servers:
        server.update(labels={})
    try:
        answer = provisioned.controller("destroy", "--fleet", "web", "--yes")
    finally:
        for server in servers:
            server.update(labels=server.labels)
    assert answer.code == 2
    assert "is the token another project's?" in answer.err
    assert provisioned.files() == before
    assert provisioned.lab.client.firewalls.get_by_name("web") is not None


def test_destroy_deletes_only_the_fleets_own_and_forgets_its_addresses(provisioned: Site) -> None:
    client = provisioned.lab.client
    bystander = client.placement_groups.create(name="bystander", type="spread").placement_group
    answer = provisioned.controller("destroy", "--fleet", "web", "--yes")
    assert answer.code == 0, answer.err
    assert provisioned.servers() == {}
    assert client.firewalls.get_by_name("web") is None
    assert client.placement_groups.get_by_name("web-1") is None
    assert client.ssh_keys.get_by_name("web") is None
    assert client.placement_groups.get_by_name("bystander") is not None
    assert not (provisioned.project.inventory("web") / "hosts.yml").exists()
    assert not provisioned.project.known_hosts("web").exists()
    assert provisioned.project.key_file("web").exists()
    again = provisioned.controller("destroy", "--fleet", "web", "--yes")
    assert (again.code, "nothing to delete" in again.out) == (0, True)
    bystander.delete()
