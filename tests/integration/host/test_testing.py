"""A configuration is tested on a live host, and the live nginx does not notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.integration.host.conftest import BASELINE_ID, VARIANT, Host

pytestmark = pytest.mark.lab

OTHER = VARIANT.replace("user www-data;", "user nobody nogroup;").replace(
    "http {", "http {\n    access_log /var/log/nginx/never.log; proxy_cache_path /var/cache/never keys_zone=n:1m;", 1
)
UPLOADS = (
    "head -c 200k /dev/zero >/root/body; for i in $(seq 300); do printf 'url = http://127.0.0.1:8093/up\\n'; done"
    " | curl -s -o /dev/null -w '%{http_code}\\n' --data-binary @/root/body -K - | grep -cx 200"
)
SITE = "server { listen 8093; client_body_buffer_size 1k; location / { proxy_pass http://127.0.0.1:8090; } }"
# nginx's own temporary folders, its logs and its pid file.
STATE = (
    "stat -c '%n %u %g %a' /run/nginx.pid;"
    " find /var/lib/nginx /var/log/nginx /var/cache -maxdepth 1 -printf '%p %u %g %m\\n' | sort"
)


@pytest.fixture
def uploading(host: Host) -> Iterator[Host]:
    host.put("/etc/nginx/sites-enabled/uploads", SITE)
    host.ratchet("confirm", BASELINE_ID)
    host.run("systemctl reload nginx")
    yield host
    host.run("rm -f /etc/nginx/sites-enabled/uploads; systemctl reload nginx")
    host.ratchet("confirm", BASELINE_ID)


@pytest.mark.parametrize("options", [["--check"], []])
def test_users_uploads_go_on_while_a_configuration_of_another_user_is_tested(
    uploading: Host, options: list[str]
) -> None:
    host = uploading
    before = host.run(STATE)
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(host.run(UPLOADS)))
    thread.start()
    for _ in range(5):
        assert host.stage(*options, other=OTHER)["ok"]
    thread.join()
    assert told == ["300\n"]
    assert host.run(STATE) == before


def test_a_test_on_a_stopped_nginx_leaves_no_pid_file_and_no_log(host: Host) -> None:
    host.run("systemctl stop nginx; rm -f /var/log/nginx/access.log")
    before = host.run("ls -A /run /var/log/nginx")
    assert host.stage("--check", other=OTHER)["ok"]
    assert host.run("ls -A /run /var/log/nginx") == before and "nginx.pid" not in before
    host.run("systemctl start nginx")


def test_a_host_without_namespaces_gets_everything_put_back(host: Host) -> None:
    host.put("/usr/sbin/unshare", "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted'; exit 1\n")
    host.run("chmod 755 /usr/sbin/unshare")
    before = host.run(STATE)
    try:
        assert host.stage("--check", other=OTHER)["ok"]
        assert host.run(STATE) == before
    finally:
        host.run("rm /usr/sbin/unshare")
