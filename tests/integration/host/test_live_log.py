"""nginx's live log stays small however much is asked, and its rotation reaches nginx and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.host.conftest import Host, configuration

FILES = Path(__file__).resolve().parents[3] / "roles/probe/files"
LOG = "/var/log/ratchet/live.log"
LOGGED = configuration(9, f"access_log {LOG};")
# Of one file, and what is written until somebody looks.
LIMIT = 64 << 20


@pytest.fixture
def logging(host: Host) -> Host:
    """The live log is on, and looked at each second."""
    host.run("id ratchet-probe >/dev/null 2>&1 || useradd --system ratchet-probe")
    host.run("install -d -m 751 -g ratchet-probe /var/log/ratchet; rm -f /var/log/ratchet/*")
    host.run(f"install -o www-data -g ratchet-probe -m 640 /dev/null {LOG}")
    host.put("/etc/ratchet-live-log.logrotate", (FILES / "live-log.logrotate").read_text())
    for name in ("live-log.service", "live-log.timer"):
        host.put(f"/etc/systemd/system/ratchet-{name}", (FILES / name).read_text())
    host.run("mkdir -p /etc/systemd/system/ratchet-live-log.timer.d")
    often = "[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nAccuracySec=100ms\n"
    host.put("/etc/systemd/system/ratchet-live-log.timer.d/test.conf", often)
    host.run("systemctl daemon-reload; systemctl restart ratchet-live-log.timer")
    logged = host.stage(logged=LOGGED)["configurations"]["logged"]["id"]
    assert host.ratchet("switch", logged, "--lease", "90")["ok"]
    return host


def size(host: Host, name: str = "live.log") -> int:
    return int(host.run(f"stat -c %s /var/log/ratchet/{name} 2>/dev/null || echo -1"))


def test_it_is_rotated_by_its_size_and_nginx_goes_on_in_the_new_one(logging: Host) -> None:
    host = logging
    for _ in range(3):
        host.run(f"head -c {LIMIT + (1 << 20)} /dev/zero | tr '\\0' '\\n' >>{LOG}")
        host.until(lambda: size(host) < LIMIT, 15)
        assert host.get()[0] == 200
        host.until(lambda: size(host) > 0, 5)
    assert host.run("ls /var/log/ratchet").split() == ["live.log", "live.log.1"]
    assert host.run(f"stat -c '%U %G %a' {LOG}").split() == ["www-data", "ratchet-probe", "640"]
    assert host.run("systemctl show -p Result --value ratchet-live-log.service").strip() == "success"


def test_both_masters_are_told_while_nginx_is_replaced(logging: Host) -> None:
    host = logging
    host.run("kill -USR2 $(cat /run/nginx.pid)")
    host.until(lambda: host.run("cat /run/nginx.pid.oldbin /run/nginx.pid 2>/dev/null | wc -l").strip() == "2", 10)
    try:
        host.run(f"head -c {LIMIT + (1 << 20)} /dev/zero | tr '\\0' '\\n' >>{LOG}")
        host.until(lambda: size(host) < LIMIT, 15)
        held = "find /proc/[0-9]*/fd -lname '/var/log/ratchet/live.log.1*' 2>/dev/null | wc -l"
        host.until(lambda: host.run(held, check=False).strip() == "0", 5)
    finally:
        host.run("kill -QUIT $(cat /run/nginx.pid); sleep 1")


def test_a_pid_file_that_names_another_process_harms_nobody(logging: Host) -> None:
    host = logging
    pid = host.run("sleep 300 >/dev/null 2>&1 & echo $!").strip()
    host.run(f"echo {pid} >/run/nginx.pid.oldbin")
    try:
        host.run(f"head -c {LIMIT + (1 << 20)} /dev/zero | tr '\\0' '\\n' >>{LOG}")
        host.until(lambda: size(host) < LIMIT, 15)
        assert host.run(f"cat /proc/{pid}/comm").strip() == "sleep"
    finally:
        host.run(f"kill {pid}; rm -f /run/nginx.pid.oldbin")
