"""The micro-cache on a real nginx: nobody gets what was somebody else's answer, and old answers do not stay."""

from __future__ import annotations

import http.client
import http.server
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.conftest import free_port
from tests.unit.roles.test_nginx_parameters import render


class Application(http.server.BaseHTTPRequestHandler):
    """Tells what it was asked, in the way of applications: by name, address, language and whoever it believes to be."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.asked.append(f"{self.command} {self.path}")
        values = sorted(map(str, self.headers.values()))
        told = [len(self.asked), self.command, self.path, self.connection.getsockname()[1], *values]
        body = repr(told).encode()
        self.send_response(301 if self.headers["Host"].startswith("www.") else 200)
        if self.path.startswith("/cached/language"):
            self.send_header("Vary", "Accept-Language")
        if self.path.startswith("/cached/login"):
            self.send_header("Set-Cookie", f"session={len(self.asked)}")
        if self.path.startswith("/cached/own"):
            self.send_header("Cache-Control", "private")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Site:
    """nginx with what the role renders: two sites, each with an application of its own, on one port each.

    Args:
        fresh: more than a test takes: what is asked twice meanwhile comes from the cache, unless it may not.
    """

    def __init__(self, folder: Path, fresh: str = "1m") -> None:
        self.applications = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application) for _ in range(2)]
        for application in self.applications:
            threading.Thread(target=application.serve_forever, daemon=True).start()
        self.ports = [free_port(), free_port()]
        self.cache = folder / "cache/ratchet"
        text = render(
            nginx_ipv6=False,
            nginx_worker_processes=1,
            nginx_proxy_cache=True,
            nginx_proxy_cache_valid=fresh,
            nginx_sites=[
                {
                    "name": name,
                    "listen": [port],
                    "locations": [
                        {"path": "/cached/", "servers": [f"127.0.0.1:{application.server_port}"], "cached": True}
                    ],
                }
                for name, port, application in zip(("one", "two"), self.ports, self.applications, strict=True)
            ],
        )
        for place in ("/run/nginx.pid", "/var/log/nginx/", "/var/cache/nginx/"):
            (folder / place.split("/")[-2]).mkdir(exist_ok=True)
        places = {
            "/etc/nginx/conf.d/*.conf": f"{folder}/none/*.conf",
            "/etc/nginx/sites-enabled/*": f"{folder}/none/*",
            "/etc/nginx/modules-enabled/*.conf": f"{folder}/none/*.conf",
            "/run/nginx.pid": f"{folder}/run/nginx.pid",
            "/var/log/nginx/": f"{folder}/",
            "/var/cache/nginx/": f"{folder}/cache/",
            "listen 127.0.0.1:8089": f"listen 127.0.0.1:{free_port()}",
            "listen 8088": f"listen 127.0.0.1:{free_port()}",
            "user www-data": f"user {'root' if os.geteuid() == 0 else 'nobody'}",
        }
        for place, here in places.items():
            text = text.replace(place, here)
        (folder / "cache").mkdir(exist_ok=True)
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        self.process = subprocess.Popen(
            ["nginx", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"], stderr=(folder / "stderr").open("w")
        )
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=1).connect()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError((folder / "stderr").read_text())

    def ask(
        self,
        path: str,
        host: str = "a.test",
        *,
        method: str = "GET",
        site: int = 0,
        body: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[site], timeout=5)
        connection.request(method, path, body or None, {"Host": host, **(headers or {})})
        answer = connection.getresponse()
        told = answer.status, answer.read().decode()
        connection.close()
        return told

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        for application in self.applications:
            application.shutdown()
            application.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("micro-cache"))
    yield site
    site.close()


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """One that no other test has asked for."""
    return f"/cached/{abs(hash(request.node.name))}"


def answered(ask: Callable[[], object]) -> int:
    """How many requests the application saw of it."""
    before = len(Application.asked)
    ask()
    return len(Application.asked) - before


def test_the_same_question_is_answered_from_the_cache(site: Site, path: str) -> None:
    assert answered(lambda: [site.ask(path) for _ in range(3)]) == 1


def test_one_name_of_a_site_is_never_answered_with_another_names_redirect(site: Site, path: str) -> None:
    assert site.ask(path, "www.a.test")[0] == 301
    assert site.ask(path, "a.test")[0] == 200


def test_what_a_stranger_named_as_host_is_in_nobodys_answer(site: Site, path: str) -> None:
    site.ask(path, "evil.test")
    assert "evil.test" not in site.ask(path, "a.test")[1]


def test_a_host_that_is_named_with_another_port_has_answers_of_its_own(site: Site, path: str) -> None:
    assert answered(lambda: [site.ask(path, host) for host in ("a.test", "a.test:8443", "a.test:81")]) == 3


def test_two_sites_of_one_name_on_two_ports_keep_their_answers_apart(site: Site, path: str) -> None:
    one, two = (site.ask(path, "same.test", site=number)[1] for number in (0, 1))
    assert str(site.applications[0].server_port) in one
    assert str(site.applications[1].server_port) in two


def test_an_answer_to_head_is_no_answer_to_get(site: Site, path: str) -> None:
    assert site.ask(path, method="HEAD") == (200, "")
    assert "GET" in site.ask(path)[1]


def test_the_application_is_asked_head_where_the_client_asked_head(site: Site, path: str) -> None:
    site.ask(path, method="HEAD")
    assert Application.asked[-1] == f"HEAD {path}"


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Scheme", "X-Forwarded-Ssl",
        "X-Forwarded-Server", "Forwarded", "X-Host", "X-Original-Host", "X-Original-URL", "X-Rewrite-URL",
        "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "Origin",
    ],
)  # fmt: skip
def test_a_header_that_applications_take_for_the_address_poisons_nobodys_answer(
    site: Site, path: str, header: str
) -> None:
    assert "evil.test" in site.ask(path, headers={header: "evil.test"})[1]
    assert "evil.test" not in site.ask(path)[1]


def test_headers_of_two_names_are_not_taken_for_one_another(site: Site, path: str) -> None:
    site.ask(path, headers={"X-Forwarded-Host": "evil.test"})
    assert answered(lambda: site.ask(path, headers={"X-Forwarded-Port": "evil.test"})) == 1


@pytest.mark.parametrize(
    "header", ["Cookie", "Authorization", "Proxy-Authorization", "X-Api-Key", "Api-Key", "X-Auth-Token"]
)
@pytest.mark.parametrize("value", ["alice", "0"])
def test_whoever_says_who_he_is_has_answers_of_his_own(site: Site, path: str, header: str, value: str) -> None:
    assert answered(lambda: [site.ask(path, headers={header: value}) for _ in range(2)]) == 2
    assert answered(lambda: site.ask(path)) == 1, "it was told what somebody else was told"
    assert answered(lambda: site.ask(path, headers={header: value})) == 1, "he was told what everybody is told"


def test_a_request_with_a_body_neither_takes_nor_leaves_an_answer(site: Site, path: str) -> None:
    assert answered(lambda: [site.ask(path, body="evil"), site.ask(path)]) == 2
    assert answered(lambda: site.ask(path, body="evil")) == 1


@pytest.mark.parametrize("kind", ["login", "own"])
def test_an_answer_that_says_it_is_for_one_is_not_kept(site: Site, kind: str) -> None:
    assert answered(lambda: [site.ask(f"/cached/{kind}") for _ in range(2)]) == 2


def test_vary_is_heeded(site: Site) -> None:
    asked = [{"Accept-Language": language} for language in ("de", "en", "de")]
    de, en, again = (site.ask("/cached/language", headers=headers)[1] for headers in asked)
    assert "'de'" in de
    assert "'en'" in en
    assert again == de


def test_only_its_owner_may_read_what_is_kept(site: Site, path: str) -> None:
    site.ask(path)
    kept = [file for file in site.cache.rglob("*") if file.is_file()]
    assert kept
    assert {file.stat().st_mode & 0o077 for file in kept} | {site.cache.stat().st_mode & 0o077} == {0}


def test_no_answer_is_older_than_it_may_be_however_long_nobody_has_asked(tmp_path: Path) -> None:
    site = Site(tmp_path, fresh="1s")
    try:
        assert answered(lambda: [site.ask("/cached/old") for _ in range(2)]) == 1
        time.sleep(2.1)
        _, told = site.ask("/cached/old")
        assert told.startswith(f"[{len(Application.asked)}, "), "an old answer was sent"
    finally:
        site.close()
