"""What a micro-cache kept of users' answers goes once it is off, whoever switched it off, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.host.conftest import Host, configuration

UNITS = Path(__file__).resolve().parents[3] / "roles/nginx/files"
CACHE = "/var/cache/nginx/ratchet"
CACHED = configuration(
    5,
    f"""proxy_cache_path {CACHE} keys_zone=ratchet:1m levels=1:2 use_temp_path=off;
    server {{ listen 8091; location / {{ return 200 "an answer of somebody's"; }} }}
    proxy_cache_valid 1h;
    server {{ listen 8092; location / {{ proxy_pass http://127.0.0.1:8091; proxy_cache ratchet; }} }}""",
)


@pytest.fixture
def sweeping(host: Host) -> Host:
    for name in ("cache.service", "cache.timer"):
        host.put(f"/etc/systemd/system/ratchet-{name}", (UNITS / name).read_text())
    # As often as a test can wait for.
    host.run("mkdir -p /etc/systemd/system/ratchet-cache.timer.d /var/cache/nginx")
    often = "[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nAccuracySec=100ms\n"
    host.put("/etc/systemd/system/ratchet-cache.timer.d/test.conf", often)
    host.run("systemctl daemon-reload; systemctl restart ratchet-cache.timer")
    return host


def kept(host: Host) -> int:
    return int(host.run(f"find {CACHE} -mindepth 1 -type f 2>/dev/null | wc -l"))


def test_answers_stay_while_the_cache_is_on_and_go_with_it(sweeping: Host) -> None:
    host = sweeping
    cached = host.stage(cached=CACHED)["configurations"]["cached"]["id"]
    assert host.ratchet("switch", cached, "--lease", "60")["ok"]
    assert host.get(8092)[1] == "an answer of somebody's"
    assert kept(host) == 1
    host.run("sleep 3")
    assert kept(host) == 1, "the cache is in use"
    assert host.ratchet("rollback")["ok"]
    host.until(lambda: kept(host) == 0, 10)
    # Again: an earlier look that found nothing to do must not have been the last one.
    assert host.ratchet("switch", cached, "--lease", "60")["ok"]
    host.get(8092)
    host.run("sleep 3")
    assert kept(host) == 1
    assert host.ratchet("rollback")["ok"]
    host.until(lambda: kept(host) == 0, 10)


def test_removing_them_reaches_nothing_outside_and_puts_up_with_any_tree(sweeping: Host) -> None:
    host = sweeping
    host.run(f"install -d -o www-data -g www-data -m 700 {CACHE}")
    host.run("mkdir -p /root/mine; touch /root/mine/file /var/lib/theirs; chown www-data /var/lib/theirs")
    hostile = (
        f"import os; os.chdir({CACHE!r}); os.symlink('/root/mine', 'folder'); os.symlink('/var/lib/theirs', 'link')"
    )
    nested = "for _ in range(3000):\n os.mkdir('d'); os.chdir('d')"
    host.run("runuser -u www-data -- python3 -", stdin=f"{hostile}\n{nested}\n")
    host.until(lambda: host.run(f"ls -A {CACHE}") == "", 20)
    assert host.run("ls /root/mine /var/lib/theirs").split() == ["/var/lib/theirs", "/root/mine:", "file"]
    assert host.run(f"stat -c %U {CACHE}").strip() == "www-data"


def test_nothing_runs_while_there_is_nothing_to_remove(sweeping: Host) -> None:
    host = sweeping
    host.run(f"rm -rf {CACHE}")
    host.run("sleep 2.5")
    before = host.run("systemctl show -p InvocationID --value ratchet-cache.service")
    host.run("sleep 2.5")
    assert host.run("systemctl show -p InvocationID --value ratchet-cache.service") == before
    host.run(f"install -d -o www-data -g www-data -m 700 {CACHE}; runuser -u www-data -- touch {CACHE}/old")
    host.until(lambda: kept(host) == 0, 10)
