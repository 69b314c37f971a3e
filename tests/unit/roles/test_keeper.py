"""What the keeper decides, on a /proc and a systemd of the test's own."""

from __future__ import annotations

import socket
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

KEEPER = Path(__file__).resolve().parents[3] / "roles/variant/files/ratchet-keeper"
FORKED, ROOTS = 0x40, 0x100
MARK = 77


@pytest.fixture
def keeper(tmp_path: Path) -> Any:
    """The program, in whose world there is nothing but this test's folders."""
    spec = spec_from_loader("ratchet_keeper", SourceFileLoader("ratchet_keeper", str(KEEPER)))
    assert spec and spec.loader
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("proc", "etc", "var", "run", "metrics"):
        (tmp_path / name).mkdir()
    module.PROC, module.VAR, module.RUN = (str(tmp_path / name) for name in ("proc", "var", "run"))
    module.CONF, module.OURS = str(tmp_path / "etc/nginx.conf"), str(tmp_path / "etc/ratchet")
    module.PID_FILE, module.METRICS = str(tmp_path / "nginx.pid"), str(tmp_path / "metrics")
    return module


def process(keeper: Any, pid: int, title: str, *, parent: int = 1, flags: int = 0, uid: int = 0) -> None:
    folder = Path(keeper.PROC, str(pid))
    folder.mkdir()
    (folder / "comm").write_text("nginx\n")
    (folder / "cmdline").write_text(title)
    (folder / "status").write_text(f"Name:\tnginx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (folder / "stat").write_text(f"{pid} (nginx) S {parent} 1 1 0 -1 {flags} 0 0\n")
    (folder / "limits").write_text(
        f"Max core file size        {MARK}                   {MARK}                   bytes \n"
    )


def test_a_worker_without_a_master_is_nginx_s_only_if_it_was_root_s_once(keeper: Any) -> None:
    process(keeper, 10, "nginx: worker process", flags=FORKED | ROOTS, uid=33)
    # Another account's: started under that name, forked under it, or a program that sudo has started.
    for pid, flags in ((11, 0), (12, FORKED), (13, ROOTS)):
        process(keeper, pid, "nginx: worker process", flags=flags, uid=33)
    assert keeper.look() == ({}, {10: (1, MARK)})


@pytest.mark.parametrize(
    "option", ["-c /srv/nginx.conf", "-c/srv/nginx.conf", "-p /srv", "-p/srv", "-qc /srv/nginx.conf"]
)
def test_an_instance_with_a_file_of_its_own_is_left_out(keeper: Any, option: str) -> None:
    process(keeper, 10, f"nginx: master process /usr/sbin/nginx {option}")
    process(keeper, 11, "nginx: worker process", parent=10, flags=FORKED | ROOTS, uid=33)
    assert keeper.look() == ({}, {})


@pytest.mark.parametrize(
    "option", ["", " -g daemon on; master_process on;", " -c /etc/nginx/nginx.conf", " -c/etc/nginx/nginx.conf"]
)
def test_nginx_of_the_host_is_seen_whoever_has_started_it(keeper: Any, option: str) -> None:
    process(keeper, 10, f"nginx: master process /usr/sbin/nginx{option}")
    process(keeper, 11, "nginx: worker process", parent=10, uid=33)
    assert keeper.look() == ({10: 1}, {11: (10, MARK)})


@pytest.mark.parametrize(
    ("code", "said", "fell"),
    [(0, "success", False), (0, "timeout", False), (0, "signal", True), (1, "Connection reset by peer", False)],
)
def test_what_systemd_does_not_say_is_no_crash(keeper: Any, code: int, said: str, fell: bool) -> None:
    keeper.run = lambda *_: (code, said)
    assert keeper.fell() is fell
    Path(keeper.PID_FILE).write_text("123\n")
    assert keeper.fell()


def test_a_systemd_that_does_not_listen_holds_nobody_up(
    keeper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    keeper.notify("WATCHDOG=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        began = time.monotonic()
        for _ in range(3000):
            keeper.notify("WATCHDOG=1")
        assert time.monotonic() - began < 5
        assert systemd.recv(99) == b"WATCHDOG=1"


def test_what_somebody_else_has_mended_is_told_as_mended(keeper: Any, tmp_path: Path) -> None:
    told = tmp_path / "metrics/ratchet.prom"
    (tmp_path / "etc/ratchet").mkdir()
    (tmp_path / "etc/ratchet/confirmed").symlink_to("0123456789abcdef")
    looker = keeper.Keeper()
    looker.ticks, looker.pause = 4, 8.0
    looker.publish("not back")
    assert "ratchet_keeper_unconfirmed 1\n" in told.read_text()
    looker.tick()
    assert "ratchet_keeper_unconfirmed 0\n" in told.read_text() and looker.pause == 0


def test_a_link_of_somebody_s_own_is_kept_like_a_file(keeper: Any, tmp_path: Path) -> None:
    configuration = Path(keeper.CONF)
    (tmp_path / "deployed.conf").write_text("# own\n")
    configuration.symlink_to(tmp_path / "deployed.conf")
    keeper.point(keeper.CONF, "ratchet/live/nginx.conf")
    keeper.point(keeper.CONF, f"{keeper.VAR}/baseline-x.conf")
    (kept,) = configuration.parent.glob("nginx.conf.edited-*")
    assert kept.readlink() == tmp_path / "deployed.conf"
    assert configuration.readlink() == Path(f"{keeper.VAR}/baseline-x.conf")
