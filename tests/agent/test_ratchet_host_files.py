"""What root's program keeps on the disk: configurations, links, whole files; and the error log that it reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ratchet_host.configurations import live, staged
from ratchet_host.figures import ErrorLog
from ratchet_host.files import identify, point, short_diff, write_atomically
from ratchet_host.paths import live_link
from ratchet_host.staging import KEEP_BYTES, prune


@pytest.mark.parametrize(("keep", "each", "left"), [(2, 100, 2), (9, 100, 4), (9, KEEP_BYTES // 2, 2), (0, 100, 0)])
def test_unused_configurations_are_pruned_by_count_and_size(etc: Path, keep: int, each: int, left: int) -> None:
    texts = [f"# {number}\n".encode() for number in range(6)]
    names = [identify(text) for text in texts]
    for age, (name, text) in enumerate(zip(names, texts, strict=True)):
        folder = etc / "ratchet" / name
        folder.mkdir()
        (folder / "nginx.conf").write_bytes(text)
        with (folder / "included.conf").open("wb") as file:
            file.truncate(each - len(text))
        os.utime(folder, (1000 - age, 1000 - age))
    point(live_link(), names[4])
    prune(keep, {names[5]})
    assert staged() == [*names[:left], names[4], names[5]]


@pytest.mark.usefixtures("etc")
def test_links_name_configurations_or_nothing() -> None:
    link = live_link()
    assert live() is None
    point(link, "0123456789abcdef")
    point(link, "fedcba9876543210")
    assert live() == "fedcba9876543210" and [path.name for path in link.parent.iterdir()] == ["live"]
    point(link, "../../etc")
    assert live() is None


def test_a_file_is_written_whole_or_not_at_all(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = etc / "file"
    write_atomically(path, b"one")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one" and not list(etc.glob(".file*"))


def test_a_difference_is_shown_shortly() -> None:
    before, after = b"".join(b"%d\n" % n for n in range(100)), b"".join(b"%d\n" % (n * 2) for n in range(100))
    assert short_diff(before, before, ("a", "b"), 5) == ""
    shown = short_diff(before, after, ("a", "b"), 5).splitlines()
    assert shown[:2] == ["--- a", "+++ b"] and len(shown) == 6 and shown[-1].endswith("more lines")
    assert "too many" in short_diff(b"\n" * 30_000, b"", ("a", "b"), 5)


def test_errors_are_counted_from_the_first_look_on_whole_lines_only_and_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    line = "2026/11/24 10:00:00 [{}] 7#7: *1 {}\n"
    log.write_text(line.format("error", "before"))
    errors = ErrorLog(lambda: log)
    assert errors.read() == {"error_log_lines": 0, "upstream_errors": 0}
    with log.open("a") as file:
        file.write(line.format("notice", "signal process started") + line.format("warn", "a [error] in its text"))
        file.write(line.format("error", "connect() failed while connecting to upstream"))
        file.write(line.format("crit", "open() failed")[:-1])
    assert errors.read() == {"error_log_lines": 1, "upstream_errors": 1}
    with log.open("a") as file:
        file.write("\n")
    assert errors.read() == {"error_log_lines": 2, "upstream_errors": 1}
    log.rename(tmp_path / "error.log.1")
    assert errors.read() == {"error_log_lines": 2, "upstream_errors": 1}
    log.write_text(line.format("alert", "worker process 7 exited on signal 11"))
    assert errors.read() == {"error_log_lines": 3, "upstream_errors": 1}


def test_errors_that_were_logged_before_a_rotation_and_just_after_it_count(tmp_path: Path) -> None:
    log, line = tmp_path / "error.log", "2026/11/24 10:00:00 [error] 7#7: *1 failed\n"
    log.write_text("")
    errors = ErrorLog(lambda: log)
    assert errors.read()["error_log_lines"] == 0
    total = 0
    for number in range(3):
        with log.open("a") as file:
            file.write(line)  # not looked at before the rotation
            file.flush()
            log.rename(tmp_path / f"error.log.{number}")
            log.write_text("")
            assert errors.read()["error_log_lines"] == total + 1
            # nginx has not been told yet.
            file.write(line)
            file.flush()
        assert errors.read()["error_log_lines"] == total + 2
        log.write_text(line)
        total += 3
        assert errors.read()["error_log_lines"] == total
    with log.open("a") as file:
        file.write(line * 2)
    assert errors.read()["error_log_lines"] == total + 2
    log.write_text(line)  # copytruncate
    assert errors.read()["error_log_lines"] == total + 3


def test_a_log_that_comes_later_counts_from_its_beginning_and_one_that_is_no_file_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    errors = ErrorLog(lambda: log)
    assert errors.read() == {}
    os.mkfifo(log)
    assert errors.read() == {}
    log.unlink()
    log.write_text("2026/11/24 10:00:00 [error] 7#7: *1 failed\n")
    assert errors.read() == {"error_log_lines": 1, "upstream_errors": 0}
