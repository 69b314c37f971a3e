"""What a test of a configuration leaves on the host: nothing, whatever user and files the configuration names."""

from __future__ import annotations

import os
import pwd
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_host import paths, side_effects, system
from ratchet_host.language import parse
from ratchet_host.nginx import test as check
from ratchet_host.side_effects import Written

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path(NGINX).exists(), reason="needs root and nginx")

TEXT = """
user {user}; pid {etc}/run/nginx.pid; error_log {etc}/log/error.log;
events {{}}
http {{
  access_log {etc}/log/access.log; access_log {etc}/log/$host.log; access_log {etc}/nowhere/$host/a.log;
  fastcgi_temp_path {etc}/lib/1; uwsgi_temp_path {etc}/lib/2; scgi_temp_path {etc}/lib/3; proxy_temp_path {etc}/lib/4;
  client_body_temp_path {etc}/lib/body; proxy_cache_path {etc}/lib/cache keys_zone=z:1m use_temp_path=off;
  server {{ listen 127.0.0.1:1; proxy_temp_path {etc}/lib/new; location / {{ return 200; }} {more} }}
}}
"""


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    return {
        str(path): (status.st_uid, status.st_gid, status.st_mode, status.st_ino, 0 if path.is_dir() else status.st_size)
        for path in sorted(folder.rglob("*"))
        for status in (path.lstat(),)
        if not path.is_relative_to(paths.RUN)
    }


@pytest.fixture(params=["apart", "put back"])
def host(
    request: pytest.FixtureRequest, etc: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Folders of a live nginx of www-data's; on a host that allows a namespace, and on one that does not."""
    # As on a host, where the pid file's folder holds ours.
    (etc / "run/ratchet").mkdir(parents=True)
    for name, place in (("RUN", etc / "run/ratchet"), ("VAR", etc / "var"), ("NGINX", NGINX)):
        monkeypatch.setattr(paths, name, place)
    if request.param == "put back":
        bin_folder = tmp_path_factory.mktemp("bin")
        (bin_folder / "unshare").write_text(
            "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted'; exit 1\n"
        )
        (bin_folder / "unshare").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    else:
        monkeypatch.setattr(side_effects, "put_back", lambda before: pytest.fail(f"something to put back: {before}"))
    for name in ("log", "lib/body", "lib/cache"):
        (etc / name).mkdir(parents=True)
    for name in ("lib/body", "lib/cache"):
        os.chown(etc / name, pwd.getpwnam("www-data").pw_uid, 0)
        (etc / name).chmod(0o500 if name.endswith("cache") else 0o700)
    (etc / "lib/body/upload").write_text("being written")
    yield etc


def staged(etc: Path, **words: str) -> Path:
    path = etc / "ratchet/nginx.conf"
    path.write_text(TEXT.format(etc=etc, **{"user": "nobody nogroup", "more": ""} | words))
    return path


@pytest.mark.parametrize("more", ["", "nonsense on;", "listen 127.0.0.1:1 default_server ssl;"])
def test_a_test_leaves_owners_modes_and_files_as_they_were(host: Path, more: str) -> None:
    path = staged(host, more=more)
    before = state(host)
    told = check(path, "x")
    assert (told == "") == (more == ""), told
    assert state(host) == before


def test_a_live_nginx_s_folders_change_hands_for_no_instant(host: Path, request: pytest.FixtureRequest) -> None:
    if "put back" in request.node.name:
        pytest.skip("what is put back was away for some milliseconds")
    path, owners, done = staged(host), set[int](), threading.Event()

    def look() -> None:
        while not done.is_set():
            owners.add((host / "lib/body").stat().st_uid)

    thread = threading.Thread(target=look)
    thread.start()
    assert [check(path, "x") for _ in range(20)] == [""] * 20
    done.set()
    thread.join()
    assert owners == {pwd.getpwnam("www-data").pw_uid}


def test_a_test_that_would_change_nothing_needs_no_namespace(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = staged(host, user="www-data")
    for name in ("log/access.log", "log/error.log", "run/nginx.pid"):
        (host / name).touch()
    for name in ("lib/new", "lib/cache", "lib/cache/temp", *(f"lib/{number}" for number in range(1, 5))):
        (host / name).mkdir(exist_ok=True)
        os.chown(host / name, pwd.getpwnam("www-data").pw_uid, 0)
        (host / name).chmod(0o700)
    ran: list[str] = []
    real = system.run
    monkeypatch.setattr(system, "run", lambda *words, **more: ran.append(words[0]) or real(*words, **more))
    assert check(path, "x") == "" and set(ran) == {NGINX}


@pytest.mark.usefixtures("etc")
def test_what_nginx_was_compiled_with_is_asked_once_for_each_binary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "RUN", tmp_path)
    binary = tmp_path / "nginx"
    script = "#!/bin/sh\necho asked >>{}; echo 'configure arguments: --prefix={} --http-proxy-temp-path=/p' >&2\n"
    monkeypatch.setattr(paths, "NGINX", str(binary))
    for prefix in ("/one", "/other"):
        binary.write_text(script.format(tmp_path / "asked", prefix))
        binary.chmod(0o755)
        for _ in range(3):
            assert side_effects.compiled_in() == {"prefix": prefix, "http-proxy-temp-path": "/p"}
    assert (tmp_path / "asked").read_text() == "asked\n" * 2
    (tmp_path / "compiled-in.json").write_text('{"key": 1, "options": []}')
    assert side_effects.compiled_in()["prefix"] == "/other"
    written = Written(parse("http { server { access_log logs/a; } proxy_temp_path t 1 2; }", "x"))
    assert {Path("/other/logs/a")} <= written.files and {Path("/other/t"), Path("/other/scgi_temp")} <= written.folders
    assert Path("/p") not in written.folders
