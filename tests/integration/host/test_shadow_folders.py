"""What shadow instances write, and what others do in their folders: bounded, and never in the way of anything."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.host.conftest import BASELINE_ID, VARIANT_ID, Host, configuration, identity
from tests.integration.host.test_duets import assert_gone

pytestmark = pytest.mark.lab

BODY = "/var/lib/ratchet/shadow-a/var/lib/nginx/body"
# What any process of www-data could do: keep a foot in a folder and go on making files, or make a folder very deep.
FOOT = """
import os, sys, time
os.chdir(sys.argv[1])
folder, end, number = os.open(".", os.O_RDONLY), time.time() + float(sys.argv[2]), 0
while time.time() < end:
    number += 1
    try:
        os.close(os.open(f"f{number % 1000}", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    except OSError:
        pass
"""
DEEP = """
import os, sys
os.chdir(sys.argv[1])
for _ in range(int(sys.argv[2])):
    os.mkdir("d")
    os.chdir("d")
"""
ASK = "for i in $(seq COUNT); do echo 'url = http://127.0.0.1:PORT/PATH'; done | curl -s -o /dev/null -K -"


@pytest.fixture(params=["in memory", "on the disk"])
def place(request: pytest.FixtureRequest, host: Host) -> Iterator[str]:
    """Where a shadow writes: on a host that allows a mount, and on one that does not."""
    kind: str = request.param
    if kind == "on the disk":
        host.put("/usr/sbin/mount", "#!/bin/sh\necho not here; exit 32\n")
        host.run("chmod 755 /usr/sbin/mount")
    host.put("/root/foot.py", FOOT)
    host.put("/root/deep.py", DEEP)
    host.run("chmod 711 /root")
    yield kind
    host.run(
        "rm -f /usr/sbin/mount; chattr -R -i /var/lib/ratchet 2>/dev/null; rm -rf /var/lib/ratchet/.gone-*", check=False
    )


def foot(host: Host, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(host.exec("setpriv", "--reuid=33", "--regid=33", "--clear-groups",
                                      "python3", "-c", FOOT, BODY, str(seconds)))  # fmt: skip


def test_what_www_data_does_in_a_shadow_s_folders_keeps_nobody_from_going_back_or_on(host: Host, place: str) -> None:
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    host.run(f"setpriv --reuid=33 --regid=33 --clear-groups python3 -c '{DEEP}' {BODY} 1500")
    feet = [foot(host, 20) for _ in range(3)]
    host.until(lambda: host.run(f"ls {BODY} | wc -l").strip() != "1", 5)
    ended = session.ask("end")
    assert ended["verified"], ended
    assert_gone(host)
    again = host.session(design="duet")
    answer = again.ask("assign", a=BASELINE_ID, b=VARIANT_ID)
    assert answer["ok"] and host.get(answer["ports"]["b"]["8090"])[1] == "level 4\n"
    assert again.ask("end")["verified"]
    assert host.ratchet("rollback")["ok"] and host.level() == "level 9\n"
    for process in feet:
        process.kill()
    if place == "in memory":
        assert host.run("ls -A /var/lib/ratchet | grep gone || true") == ""


def test_what_cannot_be_deleted_stays_and_the_next_duet_begins_in_a_fresh_place(host: Host, place: str) -> None:
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    immutable = host.run(f"touch {BODY}/kept && chattr +i {BODY}/kept && echo yes || true").strip()
    assert session.ask("end")["verified"]
    assert_gone(host)
    assert host.session(design="duet").ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    assert host.run(f"ls {BODY}") == ""
    if place == "on the disk" and immutable == "yes":
        assert "could be deleted" in host.run("journalctl -t ratchet-host --no-pager | tail -n 50")


def test_a_shadow_s_logs_and_caches_do_not_grow_with_the_trial(host: Host, place: str) -> None:
    long = "x" * 4000
    session = host.session(design="duet")
    ports = session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ports"]
    largest = 0
    for _ in range(6):
        host.run(ASK.replace("COUNT", "400").replace("PORT", str(ports["a"]["8090"])).replace("PATH", long))
        largest = max(largest, int(host.run("stat -c %s /var/lib/ratchet/shadow-a/var/log/nginx/access.log")))
        assert "error" not in session.ask("metrics")
    assert 1 << 20 < largest < 3 << 20, place
    assert "level 9" in host.get(ports["a"]["8090"])[1]


def test_a_shadow_that_fills_its_place_ends_the_trial_and_leaves_the_disk_alone(host: Host, place: str) -> None:
    free = int(host.run("stat -f -c %a /var/lib/nginx"))
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    # More than any shadow may have; the disk's own limit is a file's, so it takes several.
    host.run(
        "setpriv --reuid=33 --regid=33 --clear-groups sh -c 'for i in 1 2 3; do"
        f" head -c 100M /dev/zero >{BODY}/$i; done' 2>/dev/null || true"
    )
    refused = session.ask("metrics")["error"]
    assert "shadow instance a has filled the" in refused and "switchback" in refused
    assert "has filled" in session.ask("assign", a=VARIANT_ID, b=BASELINE_ID)["error"]
    assert session.ask("end")["verified"]
    assert_gone(host)
    assert int(host.run("stat -f -c %a /var/lib/nginx")) > free - 20_000, place


def test_a_worker_at_a_file_s_limit_logs_it_and_lives(host: Host, place: str) -> None:
    text = configuration(4, "server { listen 8095; root /nowhere; client_max_body_size 0; client_body_in_file_only on;"
                            " location / { proxy_pass http://127.0.0.1:8090; } }")  # fmt: skip
    assert host.stage(large=text)["ok"]
    session = host.session(design="duet")
    ports = session.ask("assign", a=identity(text), b=identity(text))["ports"]
    workers = host.run("pgrep -P $(systemctl show -P MainPID ratchet-shadow-a)").split()
    host.run(
        f"head -c 300M /dev/zero | curl -s -T - -o /dev/null -m 60 http://127.0.0.1:{ports['a']['8095']}/x || true"
    )
    assert host.run("pgrep -P $(systemctl show -P MainPID ratchet-shadow-a)").split() == workers
    if place == "on the disk":
        said = host.run("cat /var/lib/ratchet/shadow-a/var/log/nginx/error.log")
        assert "File too large" in said or "has written only" in said


def test_nobody_but_root_and_nginx_s_group_sees_a_shadow_s_files(host: Host) -> None:
    host.put("/etc/nginx/sites-enabled/secret", "map $host $token { default SECRET; }\n")
    host.run("chmod 600 /etc/nginx/sites-enabled/secret")
    host.ratchet("confirm", BASELINE_ID)
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    for user in ("nobody", "www-data"):
        seen = host.run(
            f"setpriv --reuid={user} --regid=nogroup --clear-groups sh -c 'cat /run/ratchet/shadow-a/nginx.conf;"
            " ls /var/lib/ratchet/shadow-a/var' 2>&1 || true"
        )
        assert "SECRET" not in seen and seen.count("Permission denied") == 2, seen
    session.ask("end")
    host.run("rm /etc/nginx/sites-enabled/secret")
    host.ratchet("confirm", BASELINE_ID)
