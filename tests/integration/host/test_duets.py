"""Two shadow instances beside the live one, which does not notice."""

from __future__ import annotations

import concurrent.futures

import pytest

from tests.integration.host.conftest import BASELINE_ID, LEASE, VARIANT_ID, Client, Host, configuration, identity

pytestmark = pytest.mark.lab

SITE = """
server { listen 80; listen [::]:80; listen 443 ssl http2; server_name shop;
  ssl_certificate /etc/nginx/shop.pem; ssl_certificate_key /etc/nginx/shop.pem;
  location / { proxy_pass http://127.0.0.1:8099; proxy_cache shop; add_header X-Cache $upstream_cache_status; } }
server { listen 127.0.0.1:8099; location / { return 200 "upstream $server_port\\n"; } }
"""
CACHE = "proxy_cache_path /var/cache/shop keys_zone=shop:1m; access_log /var/log/shop/$host.log;"


LOAD = (
    "for i in $(seq 150); do printf 'url = http://127.0.0.1:PORT/\\n'; done"
    " | curl -s -o /dev/null -w '%{http_code}\\n' -K - | sort | uniq -c"
)
FOLDERS = "/var/log/nginx /var/log/shop /var/cache/shop /var/lib/nginx"
WRITTEN = f"find {FOLDERS} -type f -printf '%p %s\\n' 2>/dev/null | sort || true"


def assert_gone(host: Host) -> None:
    assert host.run("systemctl list-units --no-legend --all 'ratchet-shadow-*'") == ""
    assert (
        host.run("ls -d /etc/nginx/.ratchet* /run/ratchet/shadow* /var/lib/ratchet/shadow* 2>/dev/null || true") == ""
    )


def test_a_duet_serves_both_configurations_and_leaves_the_live_one_alone(host: Host) -> None:
    workers = host.workers()
    client = Client(host.address)
    client.start()
    session = host.session(design="duet")
    answer = session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)
    assert answer["ok"] and answer["a"] == BASELINE_ID and answer["b"] == VARIANT_ID
    ports = answer["ports"]
    assert set(ports["a"]) == set(ports["b"]) == {"80", "8089", "8090"}
    assert len({*ports["a"].values(), *ports["b"].values()}) == 6
    assert host.get(ports["a"]["8090"])[1] == "level 9\n" and host.get(ports["b"]["8090"])[1] == "level 4\n"
    assert "Active connections" in host.get(ports["a"]["8089"])[1]
    for a, b in ((VARIANT_ID, BASELINE_ID), (BASELINE_ID, VARIANT_ID), (VARIANT_ID, VARIANT_ID)):
        answer = session.ask("assign", a=a, b=b)
        assert answer["ok"] and answer["ports"] == ports and answer["seconds"] < 3
        levels = {BASELINE_ID: "level 9\n", VARIANT_ID: "level 4\n"}
        assert host.get(ports["a"]["8090"])[1] == levels[a] and host.get(ports["b"]["8090"])[1] == levels[b]
    figures = session.ask("metrics")["instances"]
    assert all(figures[name]["cpu_us"] > 0 and figures[name]["rss_bytes"] > 0 for name in "ab")
    assert host.level() == "level 9\n"
    assert session.ask("end") == {"ok": True, "command": "end", "configuration": BASELINE_ID, "verified": True}
    client.stop()
    assert client.failures == [] and host.workers() == workers
    assert_gone(host)


def test_traffic_on_both_shadows_survives_being_reassigned(host: Host) -> None:
    session = host.session(design="duet")
    ports = session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ports"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = [pool.submit(host.run, LOAD.replace("PORT", str(ports[name]["8090"]))) for name in "ab"]
        for _ in range(3):
            assert session.ask("assign", a=VARIANT_ID, b=BASELINE_ID)["ok"]
        for counted in both:
            assert counted.result().split()[1] == "200"


def test_a_shadow_shares_sites_upstreams_and_certificates_but_no_file_that_is_written(host: Host) -> None:
    host.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=shop"
        " -keyout /tmp/key -out /etc/nginx/shop.pem 2>/dev/null; cat /tmp/key >>/etc/nginx/shop.pem;"
        "mkdir -p /var/log/shop; chown www-data /var/log/shop"
    )
    text = configuration(4, CACHE + SITE)
    assert host.stage(variant=text)["ok"]
    before = host.run(WRITTEN)
    session = host.session(design="duet")
    ports = session.ask("assign", a=identity(text), b=BASELINE_ID)["ports"]
    assert set(ports["a"]) == {"80", "443", "8089", "8090", "8099"} and set(ports["b"]) == {"80", "8089", "8090"}
    plain = host.run(f"curl -s -i -H 'Host: shop' http://127.0.0.1:{ports['a']['80']}/")
    assert "200 OK" in plain or "502" in plain
    secure = host.run(
        f"curl -s -k -o /dev/null -w '%{{http_version}}' -H 'Host: shop' https://127.0.0.1:{ports['a']['443']}/"
    )
    assert secure == "2"
    own = host.run("find /var/lib/ratchet/shadow-a -type f")
    assert "/var/lib/ratchet/shadow-a/by-workers/var/log/shop/shop.log" in own
    after = host.run(WRITTEN)
    assert before == after
    session.ask("end")
    assert_gone(host)


def test_the_lease_ends_the_shadows_of_a_killed_session(host: Host) -> None:
    workers = host.workers()
    session = host.session(design="duet", lease=LEASE)
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    host.run(f"kill -9 {host.status()['lease']['session']}")
    host.until(lambda: "shadow" not in host.run("systemctl list-units --all 'ratchet-shadow-*'"), LEASE + 4)
    host.until(lambda: host.status()["lease"] is None, 3)
    assert host.workers() == workers
    # Their files go with the next command: the keeper removes nothing.
    host.ratchet("rollback")
    assert_gone(host)
    assert host.workers() == workers


@pytest.mark.parametrize("remedy", ["rollback", "stage", "session"])
def test_whatever_comes_next_removes_orphaned_shadows(host: Host, remedy: str) -> None:
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    host.run(f"kill -9 {host.status()['lease']['session']}")
    if remedy == "rollback":
        host.ratchet("rollback")
    elif remedy == "stage":
        host.stage(variant=configuration(4))
    else:
        assert host.session().ready["ok"]
    assert_gone(host)


def test_a_shadow_that_dies_is_an_error_and_the_session_can_go_on(host: Host) -> None:
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    host.run("systemctl kill --signal=KILL ratchet-shadow-b")
    host.until(
        lambda: (
            "failed" in host.run("systemctl is-active ratchet-shadow-b || true")
            or "inactive" in host.run("systemctl is-active ratchet-shadow-b || true")
        ),
        5,
    )
    assert "shadow instance b does not run" in session.ask("metrics")["error"]
    assert session.ask("assign", a=VARIANT_ID, b=BASELINE_ID)["ok"]


def test_a_shadow_that_takes_no_reload_is_told_apart_from_the_live_instance(host: Host) -> None:
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    host.run("systemctl kill --kill-whom=main --signal=STOP ratchet-shadow-b")
    refused = session.ask("assign", a=VARIANT_ID, b=BASELINE_ID)["error"]
    assert "shadow instance b's master process is stopped" in refused
    assert session.ask("end")["verified"]
    assert_gone(host)


def test_a_duet_does_not_go_on_beside_a_dead_live_instance(host: Host) -> None:
    session = host.session(design="duet")
    assert session.ask("assign", a=BASELINE_ID, b=VARIANT_ID)["ok"]
    host.run("systemctl kill --signal=KILL nginx")
    host.until(lambda: not host.status()["nginx"]["running"], 5)
    assert "not running" in session.ask("assign", a=VARIANT_ID, b=BASELINE_ID)["error"]
    assert session.ask("end")["verified"] and host.level() == "level 9\n"
    assert_gone(host)


def test_each_design_has_its_own_commands(host: Host) -> None:
    assert "not in the design duet" in host.session(design="duet").switch(VARIANT_ID)["error"]
    host.close_sessions()
    assert "not in the design switchback" in host.session().ask("assign", a=VARIANT_ID, b=VARIANT_ID)["error"]


def test_a_configuration_that_is_not_here_is_not_assigned(host: Host) -> None:
    session = host.session(design="duet")
    assert "not staged here" in session.ask("assign", a=BASELINE_ID, b="0" * 16)["error"]
    assert_gone(host)
