"""Whatever root's program is given, and whatever a crash has left in its folders: one JSON document, exit 0, 1 or 2,
and nothing touched but its own.

Each example runs the whole program in a process of its own, with its folders moved; every write it makes is recorded by
an audit hook. There is no systemd here and no nginx runs, so nothing can go live: those are tested on real hosts.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import pkgutil
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ratchet_host
import ratchet_host.session as session_room
from ratchet_host import lease, main, paths, system
from ratchet_host.claim import Fence
from ratchet_host.files import identify
from ratchet_host.marks import LIVE, split_mark, with_mark
from ratchet_host.session import Duet, Switchback, serve
from ratchet_host.session_input import Ended, Lines
from tests.agent.test_ratchet_host_input import JSON

# All rooms are loaded before a fork: what a child compiles would count as written.
for room in pkgutil.iter_modules(ratchet_host.__path__):
    importlib.import_module(f"ratchet_host.{room.name}")

FUZZ = settings(max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
BASELINE = b"events {}\n"
ID = identify(BASELINE)
CRASHED = 99
OUTSIDE = b"nobody's business\n"
WRITES = {
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.link": 2,
    "os.chmod": 1,
    "os.chown": 1,
    "os.truncate": 1,
    "os.utime": 1,
    "shutil.rmtree": 1,
}


@dataclass(frozen=True)
class Ran:
    code: int
    documents: list[dict[str, Any]]
    stderr: str
    written: list[str]


class Place:
    """A host's folders, and a file beside them that is not the program's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("etc", "var", "run", "outside"):
            (root / name).mkdir()
        (root / "etc/nginx.conf").write_text("events {}\n")
        (root / "outside/file").write_bytes(OUTSIDE)

    def run(self, action: Callable[[], int], stdin: bytes = b"") -> Ran:
        streams = [self.root / name for name in ("stdin", "stdout", "stderr", "audit")]
        streams[0].write_bytes(stdin)
        pid = os.fork()
        if pid == 0:
            os._exit(self._child(action, streams))
        _, status = os.waitpid(pid, 0)
        return Ran(
            code=os.waitstatus_to_exitcode(status),
            documents=[json.loads(line) for line in streams[1].read_text().splitlines()],
            stderr=streams[2].read_text(errors="replace"),
            written=streams[3].read_text(errors="replace").splitlines(),
        )

    def _child(self, action: Callable[[], int], streams: list[Path]) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = [os.open(streams[0], os.O_RDONLY), *(os.open(path, flags) for path in streams[1:])]
        for wanted, descriptor in enumerate(opened[:3]):
            os.dup2(descriptor, wanted)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        paths.ETC, paths.VAR, paths.RUN = (self.root / name for name in ("etc", "var", "run"))
        paths.NGINX, paths.PROC = "/bin/true", self.root / "no-proc"
        real = system.run
        missing = ("systemctl", "systemd-run", paths.KEEPER)
        system.run = lambda *words, **more: (1, "no systemd") if words[0] in missing else real(*words, **more)
        lease.KEEPER_SECONDS = 0.0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            paths = arguments[: WRITES.get(event, 0)]
            if event == "os.symlink":
                paths = arguments[1:2]
            if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
                paths = arguments[:1]
            for path in paths:
                if event in {"os.remove", "os.rmdir"} and arguments[1] != -1:
                    path = Path(os.readlink(f"/proc/self/fd/{arguments[1]}")) / path  # noqa: PLW2901, PTH115
                if isinstance(path, str | bytes | os.PathLike):
                    os.write(opened[3], os.fsencode(path).replace(b"\n", b"?") + b"\n")

        sys.addaudithook(hook)
        try:
            code = action()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else CRASHED
        except BaseException:
            traceback.print_exc()
            code = CRASHED
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        return code

    def check(self, ran: Ran) -> None:
        assert ran.code in {0, 1, 2}, ran.stderr
        assert "Traceback" not in ran.stderr
        own = tuple(f"{self.root}/{name}" for name in ("etc/ratchet", "etc/nginx.conf", "etc/.", "var", "run"))
        assert [path for path in ran.written if not path.startswith(own) and path != "/dev/null"] == []
        assert (self.root / "outside/file").read_bytes() == OUTSIDE
        assert [path.name for path in (self.root / "outside").iterdir()] == ["file"]
        for document in ran.documents:
            assert "internal error" not in str(document.get("error")), document


@contextlib.contextmanager
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="ratchet-fuzz-"))
    try:
        yield Place(folder)
    finally:
        shutil.rmtree(folder)


def command(*words: str) -> Callable[[], int]:
    return lambda: int(main.main(list(words)))


ARGUMENTS = f"""stage switch confirm rollback status session --check --lease --to --design duet original --bound
claim release --holder --run --generation --seconds root@ops r-1 {ID} 60 5 99999 -1 ../../etc -- - --lea
@/etc/shadow""".split()
WORDS = (
    st.sampled_from(["", *ARGUMENTS])
    | st.text(st.characters(exclude_characters="\0"), max_size=8)
    | st.binary(max_size=4).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)
)


@FUZZ
@given(st.lists(WORDS, max_size=5))
@example(["session", "--lease", "60", "--design", "duet"])
@example(["confirm", ID])
@example(["rollback", "--to", "original"])
@example(["stage", "\udcff"])
def test_any_arguments(words: list[str]) -> None:
    with place() as here:
        ran = here.run(command(*words))
        here.check(ran)
        if ran.documents or {"-h", "--help", "--version"}.isdisjoint(words):
            assert [document["ok"] for document in ran.documents].count(True) <= 1
            assert ran.documents[-1]["ok"] == (ran.code == 0)


TEXTS = [
    "events {}",
    "include /etc/shadow;",
    "a" * 5000,
    "{" * 300,
    "\ud800",
    "}",
    "x;\0",
    "load_module ../x.so;",
    "#\u2028;",
]
TEXT = st.text(max_size=30) | st.sampled_from(TEXTS)
LABELS = st.sampled_from(["a", "baseline", "../x", "", "a/b", "A" * 65, "-x", "\n"]) | st.text(max_size=4)


@FUZZ
@given(
    st.binary(max_size=100)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"configurations": st.dictionaries(LABELS, TEXT, max_size=3)},
        optional={"keep": st.integers(-2, 1001) | JSON, "more": JSON},
    ).map(lambda value: json.dumps(value).encode()),
    st.booleans(),
)
@example(b'{"configurations": {"a": "events {}"}, "keep": 0}', False)
def test_any_document_to_stage(document: bytes, check: bool) -> None:
    with place() as here:
        ran = here.run(command("stage", *(["--check"] if check else [])), document)
        here.check(ran)
        (answer,) = ran.documents
        assert answer["ok"] == (ran.code == 0)
        if check or not answer["ok"]:
            ids = [path.name for path in (here.root / "etc/ratchet").glob("*") if paths.ID.fullmatch(path.name)]
            assert not (check and ids)
        else:
            for told in answer["configurations"].values():
                content = (here.root / "etc/ratchet" / told["id"] / "nginx.conf").read_bytes()
                mark, text = split_mark(content)
                assert identify(text) == told["id"] and mark in LIVE


COMMANDS = [
    {"command": "switch", "configuration": ID},
    {"command": "switch", "configuration": "../../../etc"},
    {"command": "switch"},
    {"command": "assign", "a": ID, "b": ID},
    {"command": "assign", "a": ID, "b": "../.."},
    {"command": "renew"},
    {"command": "status"},
    {"command": "metrics"},
]
LINES = (
    st.binary(max_size=60).filter(lambda raw: b"\n" not in raw)
    | (JSON | st.sampled_from(COMMANDS)).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"[" * 2000, b'{"command":' + b"1" * 5000 + b"}"])
)


@FUZZ
@given(st.lists(LINES, max_size=6), st.sampled_from(["switchback", "duet"]), st.booleans())
def test_any_lines_to_a_session(lines: list[bytes], design: str, ended: bool) -> None:
    def answer() -> int:
        session = (Duet if design == "duet" else Switchback)(60, 3600, Fence())
        session_room.lease_left = lambda: 60.0
        try:
            serve(session, Lines())
        except Ended:
            return 1
        return 0

    with place() as here:
        lines = [line for line in lines if b'"end"' not in line]
        sent = [*lines, b'{"command": "end"}'] if ended else lines
        ran = here.run(answer, b"".join(line + b"\n" for line in sent))
        here.check(ran)
        assert ran.code == (0 if ended else 1)
        # No answer for what cannot be done here is anything but no; a failed line does not end the session.
        assert [answer["ok"] for answer in ran.documents] == [False] * len(lines)
        assert all(answer["error"] for answer in ran.documents)


def text(content: str) -> Callable[[Path, Path], object]:
    return lambda path, _root: path.write_text(content)


def link(target: str) -> Callable[[Path, Path], object]:
    """A relative target counts from the link, one that begins with @ from the folders' root."""
    return lambda path, root: path.symlink_to(str(root / target[1:]) if target.startswith("@") else target)


LEFT: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda path, _root: path,
    "bytes": lambda path, _root: path.write_bytes(b"\xff\xfe; {\n"),
    "empty": text(""),
    "list": text("[]"),
    "numbers": text(json.dumps({"id": ID, "files": 7, "since": "x", "master": 1})),
    "odd texts": text(json.dumps({"id": ID, "files": {"nginx.conf": 1}, "since": None, "master": [[]]})),
    "odd holder": text("1 99999999999999999999 x"),
    "unreadable tree": text("include ratchet/live/nginx.conf; http { include @@@/*; }"),
    "folder": lambda path, _root: (path / "inside").mkdir(parents=True),
    "dangling": link("nowhere"),
    "loop": lambda path, _root: path.symlink_to(path.name),
    "outside": link("@outside/file"),
    "outside-folder": link("@outside"),
    "id": link(ID),
    "original": link("original"),
    "up": link("../../outside"),
}
SPOTS = [
    "etc/nginx.conf", "etc/ratchet/live", "etc/ratchet/confirmed", f"etc/ratchet/{ID}", f"etc/ratchet/{ID}/nginx.conf",
    "etc/ratchet/original", "etc/ratchet/original/nginx.conf", "etc/.nginx.conf.new", "etc/ratchet/.live.new",
    f"var/confirmed-{ID}.json", f"var/.confirmed-{ID}.json.new", f"var/baseline-{ID}.conf", "run/session.lock",
    "var/edits.json", "run/ended.json", "run/lease", "run/.lease.new", "run/keeper", "etc/nginx.conf.edited-1",
    "run/lock", "run/claim.json", "run/.claim.json.new", "run/claim.lock", "run/shadow-a", "var/shadow-a",
    f"etc/.ratchet-check-{ID}.conf", f"etc/ratchet/.new-{ID}",
]  # fmt: skip
COMMAND_LINES = [
    *(["status"], ["stage"], ["stage", "--check"], ["rollback"], ["rollback", "--to", "original"]),
    *(["rollback", "--to", ID], ["confirm", ID], ["switch", ID], ["session", "--lease", "60"]),
    *(
        ["claim", "--holder", "root@ops", "--run", "r-1", "--seconds", "60", "--end", "r-2"],
        ["release", "--run", "r-1"],
    ),
]


def set_up(root: Path) -> None:
    """A host as a confirm leaves it."""
    folder = root / "etc/ratchet"
    for identity, content in ((ID, BASELINE), ("original", b"events {} # Debian's\n")):
        (folder / identity).mkdir(parents=True)
        (folder / identity / "nginx.conf").write_bytes(content if identity == "original" else with_mark(content, 2))
    for name in ("live", "confirmed"):
        (folder / name).symlink_to(ID)
    (root / "etc/nginx.conf").unlink()
    (root / "etc/nginx.conf").symlink_to("ratchet/live/nginx.conf")
    record = {"id": ID, "files": {"nginx.conf": BASELINE.decode()}}
    (root / f"var/confirmed-{ID}.json").write_text(json.dumps(record))
    (root / f"var/baseline-{ID}.conf").write_bytes(with_mark(BASELINE, 3))


def plant(root: Path, spot: str, kind: str) -> None:
    path = root / spot
    if not path.parent.is_dir() or path.parent.resolve().is_relative_to(root / "outside"):
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    LEFT[kind](path, root)


@settings(FUZZ, max_examples=100)
@given(
    st.dictionaries(st.sampled_from(SPOTS), st.sampled_from(sorted(LEFT)), max_size=4), st.sampled_from(COMMAND_LINES)
)
def test_whatever_was_left_in_its_folders(left: dict[str, str], words: list[str]) -> None:
    with place() as here:
        set_up(here.root)
        for spot, kind in left.items():
            plant(here.root, spot, kind)
        ran = here.run(command(*words), b'{"configurations": {"a": "events {}\\n", "b": "events {} # b"}, "keep": 0}')
        here.check(ran)
        assert ran.documents
        assert ran.documents[-1]["ok"] == (ran.code == 0)


@pytest.mark.parametrize("number", range(len(COMMAND_LINES)))
def test_each_thing_that_may_be_left_in_each_place(number: int) -> None:
    pairs = list(itertools.product(SPOTS, LEFT))
    for spot, kind in pairs[number :: len(COMMAND_LINES)]:
        with place() as here:
            set_up(here.root)
            plant(here.root, spot, kind)
            ran = here.run(command(*COMMAND_LINES[number]), b'{"configurations": {"b": "events {} # b"}}')
            here.check(ran)
            assert ran.documents and ran.documents[-1]["ok"] == (ran.code == 0), (spot, kind)
