"""Servers of the lab are real hosts: what a client orders is what it finds on them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hcloud import APIException
from hcloud.firewalls.domain import FirewallRule
from hcloud.images.domain import Image
from hcloud.locations.domain import Location
from hcloud.server_types.domain import ServerType

from controller.lab.state import LABEL

pytestmark = pytest.mark.lab


def podman(*arguments: str) -> str:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def answers(address: str, port: int, *, seconds: float = 1.0) -> bool:
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def wait_for(what: Callable[[], Any], *, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found


def test_hosts_run_what_their_user_data_says(lab_session: Any) -> None:
    (bookworm,) = lab_session.hosts(1)
    (trixie,) = lab_session.hosts(1, image="debian-13")
    for host, release, nginx in ((bookworm, "12", "nginx/1.22"), (trixie, "13", "nginx/1.26")):
        facts = lab_session.ssh(
            host, "hostname; . /etc/os-release; echo $VERSION_ID; sudo nginx -v 2>&1", user="ratchet"
        )
        name, version, served = facts.splitlines()
        assert (name, version) == (host.name, release)
        assert nginx in served
        assert (
            lab_session.ssh(host, "systemctl is-system-running --wait; systemctl --failed --no-legend") == "running\n"
        )
        # The host key is the one that was handed in: the connection was strict. No other was made.
        assert lab_session.ssh(host, "ls /etc/ssh/ssh_host_*_key").split() == ["/etc/ssh/ssh_host_ed25519_key"]


def test_limits_of_the_type_hold(lab_session: Any) -> None:
    (host,) = lab_session.hosts(1)
    program = "import os; b = bytearray(3 << 30); print(len(b))"
    killed = lab_session.ssh(host, f"python3 -c '{program}'; echo exit $?", check=False)
    assert "exit 137" in killed
    burn = "import time; a = time.perf_counter(), time.process_time()\nwhile time.perf_counter() - a[0] < 1.5: pass\n"
    burn += "print((time.process_time() - a[1]) / (time.perf_counter() - a[0]))"
    assert float(lab_session.ssh(host, f'python3 -c "{burn}"')) < 0.95


def test_units_have_sandboxes_and_packet_filters_of_their_own(lab_session: Any) -> None:
    (host,) = lab_session.hosts(1)
    lab_session.ssh(host, "systemd-run --quiet --wait -p TemporaryFileSystem=/mnt -p PrivateTmp=yes true")
    lab_session.ssh(host, "nft add table inet probe && nft list table inet probe && nft delete table inet probe")


def test_a_servers_disk_and_address_survive_power_and_a_killed_api(lab_session: Any) -> None:
    (host,) = lab_session.hosts(1, prefix="power")
    client = lab_session.client
    server = client.servers.get_by_name(host.name)
    lab_session.ssh(host, "echo kept > /root/kept; sync")
    boot = lab_session.ssh(host, "cat /proc/1/stat | cut -d' ' -f22")
    lab_session.session.restart_api(kill=True)
    assert lab_session.ssh(host, "cat /proc/1/stat | cut -d' ' -f22") == boot
    again = client.servers.get_by_name(host.name)
    assert (again.id, again.status, again.public_net.ipv4.ip) == (server.id, "running", host.address)
    assert [key.name for key in client.ssh_keys.get_all()]

    again.power_off().wait_until_finished()
    assert client.servers.get_by_id(server.id).status == "off"
    assert not answers(host.address, 22)
    again.power_on().wait_until_finished()
    wait_for(lambda: answers(host.address, 22))
    assert lab_session.ssh(host, "cat /root/kept") == "kept\n"


def test_a_server_that_reboots_itself_comes_back_where_podman_tells_nothing_of_it(lab_session: Any) -> None:
    (host,) = lab_session.hosts(1, prefix="power")
    ours = f"--filter label={LABEL}={lab_session.session.name} --filter event=died"
    listener = int(subprocess.run(["pgrep", "-f", "--", ours], capture_output=True, check=True).stdout)
    os.kill(listener, signal.SIGSTOP)
    try:
        lab_session.ssh(host, "touch /run/before; systemd-run --on-active=1 --timer-property=AccuracySec=100ms reboot")
        wait_for(lambda: "gone" in lab_session.ssh(host, "test -e /run/before || echo gone", check=False), seconds=60)
    finally:
        os.kill(listener, signal.SIGCONT)


def test_a_server_that_reboots_itself_comes_back_and_one_that_is_shut_down_does_not(lab_session: Any) -> None:
    client = lab_session.client
    (host,) = lab_session.hosts(1, prefix="power")
    server = client.servers.get_by_name(host.name)
    lab_session.ssh(host, "touch /run/before; systemd-run --on-active=1 --timer-property=AccuracySec=100ms reboot")
    wait_for(lambda: "gone" in lab_session.ssh(host, "test -e /run/before || echo gone", check=False), seconds=90)
    server.shutdown().wait_until_finished()
    assert client.servers.get_by_id(server.id).status == "off"
    time.sleep(1)
    assert client.servers.get_by_id(server.id).status == "off"
    lab_session.delete(host)
    assert client.servers.get_by_name(host.name) is None


def test_an_api_killed_in_the_middle_of_an_order_finishes_it(lab_session: Any) -> None:
    client = lab_session.client
    lab_session.session.fault("slow_action", command="create_server", seconds=3, times=1)
    made = client.servers.create(name="interrupted", server_type=ServerType(name="cx23"), image=Image(name="debian-12"))
    lab_session.session.restart_api(kill=True)
    for action in (made.action, *made.next_actions):
        action.wait_until_finished(max_retries=300)
    assert client.servers.get_by_name("interrupted").status == "running"
    client.servers.delete(made.server).wait_until_finished()


def test_a_firewall_keeps_out_what_it_does_not_name(lab_session: Any) -> None:
    (host,) = lab_session.hosts(1)
    client = lab_session.client
    server = client.servers.get_by_name(host.name)
    assert answers(host.address, 80) and answers(host.address, 22)
    ssh = FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["0.0.0.0/0", "::/0"])
    made = client.firewalls.create("guard", rules=[ssh])
    from hcloud.firewalls.domain import FirewallResource

    target = FirewallResource(type="server", server=server)
    for action in client.firewalls.apply_to_resources(made.firewall, [target]):
        action.wait_until_finished()
    try:
        assert answers(host.address, 22)
        assert not answers(host.address, 80)
        # Nothing on the host can lift it.
        lab_session.ssh(host, "nft flush ruleset")
        assert not answers(host.address, 80)
        assert [one.firewall.id for one in client.servers.get_by_id(server.id).public_net.firewalls] == [
            made.firewall.id
        ]
    finally:
        for action in client.firewalls.remove_from_resources(made.firewall, [target]):
            action.wait_until_finished()
        client.firewalls.delete(made.firewall)
    assert answers(host.address, 80)


def test_ordered_failures_reach_the_client(lab_session: Any) -> None:
    client, session = lab_session.client, lab_session.session
    order: dict[str, Any] = {
        "name": "unlucky",
        "server_type": ServerType(name="cx23"),
        "image": Image(name="debian-12"),
    }
    session.fault("unavailable", server_type="cx23", location="fsn1")
    places = {place.location.name: place.available for place in client.server_types.get_by_name("cx23").locations}
    assert not places["fsn1"] and places["nbg1"]
    with pytest.raises(APIException) as caught:
        client.servers.create(**order, location=Location(name="fsn1"))
    assert caught.value.code == "resource_unavailable"
    session.clear_faults()

    session.fault("error", code="resource_limit_exceeded", method="POST", path="/servers", times=1)
    with pytest.raises(APIException) as caught:
        client.servers.create(**order)
    assert caught.value.code == "resource_limit_exceeded"

    session.fault("action_error", command="start_server", code="action_failed", times=1)
    made = client.servers.create(**order)
    made.action.wait_until_finished()
    with pytest.raises(Exception, match="ordered by a test"):
        made.next_actions[0].wait_until_finished()
    client.servers.delete(made.server).wait_until_finished()

    session.fault("slow_action", command="create_server", seconds=1, times=1)
    made = client.servers.create(**order, start_after_create=False)
    with pytest.raises(APIException) as caught:
        client.servers.delete(made.server)
    assert caught.value.code == "locked"
    made.action.wait_until_finished()
    client.servers.delete(made.server).wait_until_finished()


def test_the_rate_limit_is_told_and_kept(lab_session: Any) -> None:
    import requests

    headers = {"Authorization": f"Bearer {'r' * 64}"}
    address = lab_session.endpoint.removesuffix("/v1")
    requests.post(f"{address}/_lab/rate-limit", json={"remaining": 1}, headers=headers, timeout=10)
    allowed = requests.get(f"{lab_session.endpoint}/locations", headers=headers, timeout=10)
    refused = requests.get(f"{lab_session.endpoint}/locations", headers=headers, timeout=10)
    assert (allowed.status_code, allowed.headers["RateLimit-Remaining"]) == (200, "0")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")


@pytest.mark.skipif(not shutil.which("hcloud"), reason="hcloud-cli is not installed")
def test_debians_command_line_client_can_use_it(lab_session: Any, tmp_path: Any) -> None:
    environment = {**os.environ, **lab_session.environment(), "HOME": str(tmp_path)}

    def hcloud(*arguments: str) -> str:
        done = subprocess.run(
            ["hcloud", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"hcloud {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    key = tmp_path / "key.pub"
    key.write_text(lab_session.new_public_key("cli"))
    hcloud("ssh-key", "create", "--name", "cli", "--public-key-from-file", str(key))
    made = hcloud("server", "create", "--name", "cli-1", "--type", "cx23", "--image", "debian-12", "--ssh-key", "cli")
    assert "created" in made
    hcloud("server", "add-label", "cli-1", "made-by=cli")
    listed = hcloud("server", "list", "-l", "made-by=cli", "-o", "columns=name,status,ipv4")
    assert "cli-1" in listed and "running" in listed
    assert json.loads(hcloud("server", "describe", "cli-1", "-o", "json"))["server_type"]["name"] == "cx23"
    assert "cx23" in hcloud("server", "describe", "cli-1")
    assert "cx23" in hcloud("server-type", "list")
    hcloud("server", "poweroff", "cli-1")
    hcloud("server", "delete", "cli-1")
    assert "cli-1" not in hcloud("server", "list")
    hcloud("ssh-key", "delete", "cli")


def test_a_bare_server_has_nothing_that_the_roles_install(lab_session: Any) -> None:
    client = lab_session.client
    made = client.servers.create(
        name="bare",
        server_type=ServerType(name="cx23"),
        image=Image(name="debian-12"),
        ssh_keys=client.ssh_keys.get_all()[:1],
        labels={"lab-image": "bare"},
        start_after_create=False,
    )
    made.action.wait_until_finished(max_retries=900)
    container = f"ratchet-{lab_session.session.name}-{made.server.id}"
    image = podman("inspect", "--format={{.ImageName}}", container)
    disk = Path(podman("image", "mount", image))
    try:
        assert (disk / "usr/bin/python3").exists()
        assert not any((disk / "usr/sbin" / program).exists() for program in ("nginx", "nft", "logrotate"))
    finally:
        podman("image", "unmount", image)
    client.servers.delete(made.server).wait_until_finished()
