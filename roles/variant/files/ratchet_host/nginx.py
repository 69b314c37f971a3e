"""Whether nginx takes a file, and whether it answers."""

from __future__ import annotations

import errno
import re
import socket
import time
from pathlib import Path

from ratchet_host import paths, system
from ratchet_host.errors import Refused
from ratchet_host.files import point
from ratchet_host.instance import workers
from ratchet_host.language import Directive
from ratchet_host.listeners import Listener, listeners, rank
from ratchet_host.processes import POLL_SECONDS, Process
from ratchet_host.side_effects import run_test

ANSWER_SECONDS = 3.0


def test(path: Path, name: str) -> str:
    """What `nginx -t` has against exactly that file; empty when nothing.

    The name it is tested by is beside nginx.conf, because relative includes resolve against that folder.
    """
    link = paths.ETC / f".ratchet-check-{name}.conf"
    point(link, str(path))
    try:
        code, text = run_test(link, path)
    finally:
        link.unlink(missing_ok=True)
    if code == 0:
        return ""
    lines = [line for line in text.replace(str(link), "nginx.conf").splitlines() if "test failed" not in line]
    told = [emergency(line) for line in lines if "[emerg]" in line] or lines[-3:]
    return "\n".join(told)[-2000:] or f"nginx -t ended with {code}"


def emergency(line: str) -> str:
    """What an [emerg] line of nginx says, without time and process."""
    return re.sub(r"^ ([0-9]+#[0-9]+: )?(\*[0-9]+ )?", "", line.partition("[emerg]")[2])


def connect(listener: Listener) -> socket.socket:
    """Raises OSError when nobody listens."""
    if listener.host.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(ANSWER_SECONDS)
        try:
            sock.connect(listener.host[5:])
        except OSError:
            sock.close()
            raise
        return sock
    host = {"*": "127.0.0.1", "[::]": "::1", "0.0.0.0": "127.0.0.1"}.get(listener.host, listener.host.strip("[]"))  # noqa: S104
    return socket.create_connection((host, listener.port), timeout=ANSWER_SECONDS)


def check_answers(directives: list[Directive]) -> None:
    """Every address accepts connections, and one of them answers a request. Raises Refused."""
    asked = False
    found = [listener for listener in listeners(directives) if not {"udp", "quic"} & set(listener.flags)]
    # An address of its own may be on another host just now (a floating one).
    near = [listener for listener in found if listener.host.startswith("unix:") or rank(listener.host)]
    for listener in (near or found)[:32]:
        where = f"{listener.host}:{listener.port}"
        try:
            with connect(listener) as sock:
                if asked or not listener.speaks_plain_http:
                    continue
                asked = True
                sock.sendall(b"HEAD / HTTP/1.0\r\nHost: localhost\r\nUser-Agent: ratchet-host\r\n\r\n")
                answer = sock.recv(64)
        except OSError as error:
            if error.errno in {errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT}:
                continue
            raise Refused(f"nginx does not answer on {where}: {error.strerror or error}") from None
        # `return 444` closes without a word: that is an answer too.
        if answer and not answer.startswith(b"HTTP/"):
            raise Refused(f"nginx's answer on {where} is not HTTP")


def check_health(parent: Process, directives: list[Directive]) -> None:
    """Workers are there, answer, and are the same ones afterwards (a worker that crashes is replaced at once)."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not (serving := workers(parent)):
        if time.monotonic() > deadline:
            raise Refused("nginx has no worker processes")
        time.sleep(POLL_SECONDS)
    check_answers(directives)
    crashed = [worker for worker in serving if not worker.alive]
    if crashed:
        raise Refused(
            f"{len(crashed)} of {len(serving)} new workers of nginx ended at once; by what, its error log says"
        )


def nginx_version() -> str:
    _, text = system.run(paths.NGINX, "-v")
    match = re.search(r"nginx/(\S+)", text)
    return match[1] if match else ""
