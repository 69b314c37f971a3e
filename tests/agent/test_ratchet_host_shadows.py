"""What root's program makes of a configuration for a shadow instance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ratchet_host import shadow_text, shadows
from ratchet_host.errors import Refused
from ratchet_host.language import parse
from ratchet_host.listeners import servers
from ratchet_host.processes import Process
from ratchet_host.shadow_text import ShadowText


def shadow(text: str) -> Any:
    ports: dict[tuple[str, int], int] = {}
    return ShadowText(
        parse(text, "x"), Path("/run/s"), Path("/var/s"),
        lambda protocol, port: ports.setdefault((protocol, port), 21000 + len(ports)),
    )  # fmt: skip


def listens(text: str) -> list[list[str]]:
    """The arguments of each listen directive that a shadow gets, server by server."""
    tree = parse(shadow(f"http {{ access_log off; {text} }}").text, "x")
    return [[" ".join(d.arguments) for d in server.block if d.name == "listen"] for server in servers(tree)]


@pytest.fixture(autouse=True)
def no_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_text, "compiled_in_paths", lambda: {"proxy_temp_path": "/var/lib/nginx/proxy"})


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("server { listen 80; listen [::]:80 ipv6only=on; }", [["127.0.0.1:21000"]]),
        ("server { }", [["127.0.0.1:21000"]]),
        ("server { listen 443 ssl http2 default_server; }", [["127.0.0.1:21000 ssl http2 default_server"]]),
        ("server { listen 80 default_server; } server { listen [::]:80 default_server; }",
         [["127.0.0.1:21000 default_server"], ["127.0.0.1:21000"]]),
        ("server { listen 80 reuseport backlog=9; } server { listen [::]:80 reuseport; }",
         [["127.0.0.1:21000 reuseport backlog=9"], ["127.0.0.1:21000"]]),
        ("server { listen unix:/run/x.sock; }", [["unix:/run/s/unreached.sock"]]),
        ("server { listen 80; } server { listen 127.0.0.1:80; }",
         [["unix:/run/s/unreached.sock"], ["127.0.0.1:21000"]]),
        ("server { listen 10.0.0.1:80; } server { listen 10.0.0.2:80; }", [["127.0.0.1:21000"], ["127.0.0.1:21000"]]),
        ("server { listen 10.0.0.1:80; } server { listen *:80; }",
         [["unix:/run/s/unreached.sock"], ["127.0.0.1:21000"]]),
        ("server { listen 8000-8001; }", [["127.0.0.1:21000", "127.0.0.1:21001"]]),
        ("server { listen 443 ssl; listen 443 quic reuseport; }",
         [["127.0.0.1:21000 ssl", "127.0.0.1:21001 quic reuseport"]]),
    ],
)  # fmt: skip
def test_a_shadow_listens_where_a_client_of_the_loopback_would_be_served(servers: str, expected: list[Any]) -> None:
    assert listens(servers) == expected


def test_a_shadow_writes_to_no_file_of_the_live_instance() -> None:
    text = shadow(
        """
        pid /run/nginx.pid; daemon on; user www-data; error_log stderr;
        http {
          access_log /var/log/nginx/a.log main buffer=4k; proxy_cache_path /var/cache/c keys_zone=z:1m;
          map $uri $log { access_log /not/a/path; }
          server { listen 80; access_log logs/b.log; error_log /var/log/../log/c.log; access_log syslog:server=x;
            location / { access_log off; client_body_temp_path "/tmp/d e"; root /var/www; } }
        }
        stream { server { listen 53 udp; proxy_pass 127.0.0.1:53; access_log /var/log/s.log; } }
        """
    ).text
    assert "pid /run/s/nginx.pid;" in text and "daemon" not in text and "error_log stderr;" in text
    assert "access_log /var/s/var/log/nginx/a.log main buffer=4k;" in text
    assert "proxy_cache_path /var/s/var/cache/c keys_zone=z:1m max_size=65536k;" in text
    assert "access_log /not/a/path;" in text and "access_log off;" in text and "access_log syslog:server=x;" in text
    assert "access_log /var/s/usr/share/nginx/logs/b.log;" in text and "error_log /var/s/var/log/c.log;" in text
    assert 'client_body_temp_path "/var/s/tmp/d e";' in text and "root /var/www;" in text
    assert "proxy_temp_path /var/s/var/lib/nginx/proxy;" in text and "access_log /var/s/var/log/s.log;" in text
    assert "listen 127.0.0.1:21001 udp;" in text


def test_a_path_with_variables_gets_the_folder_before_them_apart_from_what_root_opens() -> None:
    made = shadow(
        "http { access_log /var/log/$host/x.log; server { access_log /var/log/n/$host.log; access_log /var/log/n/x; } }"
    )
    assert made.shared_folders == {Path("/var/s/by-workers/var/log"), Path("/var/s/by-workers/var/log/n")}
    assert "access_log /var/s/by-workers/var/log/n/$host.log;" in made.text
    assert Path("/var/s/var/log/n") in made.folders and made.access_logs == {Path("/var/s/var/log/n/x")}


@pytest.mark.parametrize(
    ("stated", "kept"),
    [("", "max_size=65536k"), ("max_size=10g", "max_size=65536k"), ("max_size=0", "max_size=65536k"),
     ("max_size=9m inactive=1d", "max_size=9m inactive=1d"), ("max_size=2000", "max_size=2000"),
     ("max_size=1G inactive=1d", "inactive=1d max_size=65536k"), ('"max_size=3m"', '"max_size=3m"')],
)  # fmt: skip
def test_no_cache_of_a_shadow_may_take_more_than_its_share(stated: str, kept: str) -> None:
    text = shadow(f"http {{ fastcgi_cache_path /c levels=1:2 keys_zone=z:1m {stated}; }}").text
    assert f"fastcgi_cache_path /var/s/c levels=1:2 keys_zone=z:1m {kept};" in text


@pytest.mark.parametrize("text", ["http { init_by_lua_block { x } }", "http { server { listen 1-65535; } }"])
def test_what_a_shadow_cannot_do_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(Refused, match="use the design switchback"):
        shadow(text)


def test_a_shadow_yields_the_cpu_to_the_live_instance_and_its_memory_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadows, "available_memory", lambda: 1 << 30)
    limits = dict(limit.split("=", 1) for limit in shadows.shadow_limits(Process(0, 0)))
    # systemd gives the live instance's unit a weight of 100.
    assert 2 * int(limits["CPUWeight"]) <= 100
    assert int(limits["MemoryMax"]) <= (1 << 30) * 3 // 10 + shadows.folder_bytes(1 << 30)


def test_no_shadow_begins_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "available_memory", lambda: 127 << 20)
    with pytest.raises(Refused, match="a duet needs 128"):
        shadows.shadow_limits(Process(0, 0))
