"""Root's program on a host: it puts nginx configurations live, and takes every unconfirmed one back.

Commands, documents and files are described in docs/architecture.md. Standard library of Python 3.11 only.

What it promises:
* nginx always starts from a complete, tested file: links are renamed into place, never edited.
* What is live but not confirmed has a lease, a timer of systemd's, armed and looked at before nginx is touched.
  Whatever dies, the timer (or `boot`, after a power cut) makes the confirmed configuration live again.
* A reload has happened when the master has other children than before and they answer; the exit code of a reload
  command says nothing about that.
* After a crash at any line the next command can tell whether nginx runs what the link says (`Marker`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import syslog
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if __name__ == "__main__":
    # Python's own hashes are quick enough here; OpenSSL's take 4 MB of libcrypto.
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
import hashlib

# Half of what a call costs is its imports: those that few calls need stand where they are needed.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

VERSION = "1"

ETC = Path("/etc/nginx")
VAR = Path("/var/lib/ratchet")
RUN = Path("/run/ratchet")
PROC = Path("/proc")
NGINX = "/usr/sbin/nginx"
ERROR_LOG = Path("/var/log/nginx/error.log")
SERVICE = "nginx.service"
LEASE = "ratchet-lease"

ORIGINAL = "original"
ID = re.compile(r"[0-9a-f]{16}")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,127}")

MAX_INPUT = 8 << 20
MAX_CONFIGURATION = 1 << 20
MAX_CONFIGURATIONS = 64
MAX_TREE = 16 << 20
MAX_FILES = 1000
MAX_DEPTH = 20
MAX_LINE = 64 << 10
MAX_DIFF_LINES = 400
MAX_COMPARED_LINES = 20_000
MAX_DRIFT_LINES = 20

# A commit is over in a second; a longer one is in trouble.
CONFIRM_LEASE = 60
# nginx itself gives up on a port in use after 2.5 s.
GENERATION_SECONDS = 6.0
# A debugger may stop it for a moment.
STOPPED_SECONDS = 1.0
# Long requests may outlive a reload; the role's worker_shutdown_timeout ends them earlier.
OLD_WORKERS_SECONDS = 20.0
# The baseline is back once new workers serve it; what old ones still send need not be waited for.
RESTORE_SECONDS = 2.0
ANSWER_SECONDS = 3.0
TEST_SECONDS = 30.0
BOOT_SECONDS = 30.0
POLL_SECONDS = 0.01
TIME = "%Y-%m-%dT%H:%M:%SZ"


class Refused(Exception):
    """Not done, and said why; what was live before is live still, unless the message says otherwise."""


# --- paths that tests may move ---------------------------------------------------------------------------------------


def ratchet() -> Path:
    return ETC / "ratchet"


def pristine_file(identity: str) -> Path:
    """The staged text again, beside a live file that somebody has edited."""
    return ratchet() / identity / "nginx.conf.staged"


def live_link() -> Path:
    return ratchet() / "live"


def confirmed_link() -> Path:
    return ratchet() / "confirmed"


def configuration_file(identity: str) -> Path:
    return ratchet() / identity / "nginx.conf"


# --- nginx's configuration language ----------------------------------------------------------------------------------


class Directive:
    """One directive: its words as they are written (quotes kept) and, for a block, what is inside."""

    __slots__ = ("block", "line", "raw", "words")

    def __init__(self, words: list[str], line: int) -> None:
        self.words = words
        self.block: list[Directive] | None = None
        self.raw: str | None = None
        self.line = line

    @property
    def name(self) -> str:
        return plain(self.words[0])

    @property
    def arguments(self) -> list[str]:
        return [plain(word) for word in self.words[1:]]


def plain(word: str) -> str:
    """What nginx takes a word for: without its quotes and backslashes."""
    if len(word) >= 2 and word[0] in "\"'" and word[-1] == word[0]:
        word = word[1:-1]
    return re.sub(r"\\([\"'\\ ;{}])", r"\1", word)


_SPACE = " \t\r\n"


class _Reader:
    """Splits nginx's language into words, `;`, `{` and `}`, by the rules of ngx_conf_read_token."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.at = 0
        self.line = 1

    def fail(self, what: str) -> NoReturn:
        raise Refused(f"{self.source}:{self.line}: {what}")

    def next(self) -> str | None:
        """The next token; None at the end of the text."""
        text, end = self.text, len(self.text)
        while self.at < end:
            char = text[self.at]
            if char in _SPACE:
                self.line += char == "\n"
                self.at += 1
            elif char == "#":
                stop = text.find("\n", self.at)
                self.at = end if stop < 0 else stop
            elif char in ";{}":
                self.at += 1
                return char
            elif char in "\"'":
                return self._quoted(char)
            else:
                return self._bare()
        return None

    def _quoted(self, quote: str) -> str:
        start = self.at
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            self.line += char == "\n"
            if char == "\\":
                self.at += 2
                continue
            self.at += 1
            if char == quote:
                if self.at < len(self.text) and self.text[self.at] not in _SPACE + ";{)":
                    self.fail(f"unexpected {self.text[self.at]!r} after a quoted word")
                return self.text[start : self.at]
        return self.fail("a quote is not closed")

    def _bare(self) -> str:
        start = self.at
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\":
                self.at += 2
            elif char in _SPACE or char == ";" or (char == "{" and self.text[self.at - 1] != "$"):
                break
            else:
                self.at += 1
        self.at = min(self.at, len(self.text))
        return self.text[start : self.at]

    def skip_code(self) -> str:
        """The inside of a block in another language, up to its closing brace."""
        depth, start = 1, self.at
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            self.line += char == "\n"
            depth += (char == "{") - (char == "}")
            if depth == 0:
                return self.text[start : self.at - 1]
        return self.fail("a block of code is not closed")


def parse(text: str, source: str) -> list[Directive]:  # noqa: PLR0912 - a branch for each kind of token
    """The directives of a configuration file. Raises Refused with file and line where nginx would refuse it too."""
    reader = _Reader(text, source)
    top: list[Directive] = []
    stack: list[list[Directive]] = [top]
    words: list[str] = []
    line = 1
    while (token := reader.next()) is not None:
        if token == "}":  # noqa: S105 - of nginx's language
            if words:
                reader.fail("unexpected }")
            if len(stack) == 1:
                reader.fail("a } closes nothing")
            stack.pop()
        elif token in {";", "{"}:
            if not words:
                reader.fail(f"unexpected {token}")
            directive = Directive(words, line)
            stack[-1].append(directive)
            words = []
            if token == "{":  # noqa: S105 - of nginx's language
                if len(stack) > 100:
                    reader.fail("blocks are nested too deeply")
                if directive.name.endswith("_by_lua_block"):
                    directive.raw = reader.skip_code()
                else:
                    directive.block = []
                    stack.append(directive.block)
        else:
            if not words:
                line = reader.line
            words.append(token)
    if words:
        reader.fail("the last directive is not ended by ;")
    if len(stack) > 1:
        reader.fail("a block is not closed")
    return top


def render(directives: list[Directive], depth: int = 0) -> str:
    """The text of directives, one a line."""
    lines: list[str] = []
    indent = "    " * depth
    for directive in directives:
        head = indent + " ".join(directive.words)
        if directive.raw is not None:
            lines.append(f"{head} {{{directive.raw}}}\n")
        elif directive.block is None:
            lines.append(f"{head};\n")
        else:
            lines.append(f"{head} {{\n{render(directive.block, depth + 1)}{indent}}}\n")
    return "".join(lines)


class Tree:
    """A configuration with everything that it includes, as nginx reads it: relative names are under /etc/nginx."""

    def __init__(self, main: Path) -> None:
        self.main = main
        # path as nginx names it -> content; the main file's key is "nginx.conf", whichever is tested or live
        self.files: dict[str, bytes] = {}
        self._size = 0
        self.directives = self._load(main, "nginx.conf", 0)

    def _load(self, path: Path, key: str, depth: int) -> list[Directive]:
        if depth > MAX_DEPTH or len(self.files) > MAX_FILES:
            raise Refused(f"{path}: too many includes, or they include each other")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from None
        self._size += len(content)
        if self._size > MAX_TREE:
            raise Refused(f"{path}: the configuration is larger than {MAX_TREE >> 20} MiB with its includes")
        self.files[key] = content
        return self._expand(parse(content.decode("utf-8", "surrogateescape"), str(path)), depth)

    def _expand(self, directives: list[Directive], depth: int) -> list[Directive]:
        expanded: list[Directive] = []
        for directive in directives:
            if directive.block is not None:
                directive.block = self._expand(directive.block, depth)
            if directive.name == "include" and directive.block is None and len(directive.words) == 2:
                for path in included(directive.arguments[0]):
                    expanded += self._load(path, str(path), depth + 1)
            else:
                expanded.append(directive)
        return expanded

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all files."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def included(pattern: str) -> list[Path]:
    """The files an include names, in nginx's order; a name without wildcard is taken as it is."""
    full = os.path.join(ETC, pattern)  # noqa: PTH118 - an absolute pattern stands for itself
    if not glob.has_magic(full):
        return [Path(full)]
    return [Path(name) for name in sorted(glob.glob(full), key=os.fsencode)]  # noqa: PTH207


class Listener:
    """One address that nginx listens on."""

    def __init__(self, host: str, port: int, flags: list[str], *, status: bool = False) -> None:
        self.host = host
        self.port = port
        self.flags = flags
        self.status = status

    @property
    def speaks_plain_http(self) -> bool:
        return not {"ssl", "quic", "proxy_protocol", "udp"} & set(self.flags)


LOOPBACK = {"127.0.0.1", "localhost"}
ANY = {"*", "0.0.0.0", "[::]"}  # noqa: S104 - read, never bound
_ADDRESS = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?([0-9]{1,5})(?:-([0-9]{1,5}))?")


def split_address(address: str, default_port: int = 80) -> tuple[str, range]:
    """Host ("*" for any) and ports of a listen directive's first word; ("unix:...", no port) for a socket.

    Raises Refused when nginx would not understand it either.
    """
    if address.startswith("unix:"):
        return address, range(0)
    match = _ADDRESS.fullmatch(address)
    if match is None:
        if not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._*-]+", address):
            raise Refused(f"listen {address}: not an address")
        return address, range(default_port, default_port + 1)
    first = int(match[2])
    last = int(match[3] or first)
    if not 1 <= first <= last <= 65535:
        raise Refused(f"listen {address}: not a port")
    return match[1] or "*", range(first, last + 1)


def rank(host: str) -> int:
    if host in LOOPBACK:
        return 2
    return 1 if host in ANY else 0


def servers(directives: list[Directive], kind: str = "http") -> Iterator[Directive]:
    """The server blocks of a tree's `http` (or `stream`) block."""
    for outer in directives:
        if outer.name == kind and outer.block is not None:
            for inner in outer.block:
                if inner.name == "server" and inner.block is not None:
                    yield inner


def holds(directives: list[Directive], name: str) -> bool:
    """Whether a directive of that name is in there, at any depth."""
    return any(
        directive.name == name or (directive.block is not None and holds(directive.block, name))
        for directive in directives
    )


def listeners(directives: list[Directive]) -> list[Listener]:
    """The TCP addresses of all http servers, each once; those that tell nginx's status first."""
    found: dict[tuple[str, int], Listener] = {}
    for server in servers(directives):
        block = server.block or []
        status = holds(block, "stub_status")
        listens = [directive for directive in block if directive.name == "listen"]
        for words in [directive.arguments for directive in listens] or [["80"]]:
            if not words:
                continue
            host, ports = split_address(words[0])
            for port in ports[:16]:
                known = found.setdefault((host, port), Listener(host, port, [], status=status))
                known.flags += words[1:]
                known.status = known.status and status
    return sorted(found.values(), key=lambda listener: not listener.status)


# --- files -----------------------------------------------------------------------------------------------------------


def identify(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def remove_tree(folder: Path) -> None:
    """Delete a folder as far as possible."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Either the whole new content is there after a crash, or the old one."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def point(link: Path, target: str) -> None:
    """Make `link` a symlink to `target`, atomically and durably."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target)
        temporary.replace(link)
        sync_directory(link.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def pointed(link: Path) -> str | None:
    """The configuration a link names: an id, or `original`; None when it names nothing of ours."""
    try:
        target = str(link.readlink())
    except OSError:
        return None
    return target if target == ORIGINAL or ID.fullmatch(target) else None


def adopted() -> bool:
    """Whether /etc/nginx/nginx.conf is ours."""
    try:
        return str((ETC / "nginx.conf").readlink()) == "ratchet/live/nginx.conf"
    except OSError:
        return False


def live() -> str | None:
    return pointed(live_link())


def confirmed() -> str | None:
    return pointed(confirmed_link())


def shown(identity: str | None) -> str | None:
    """An id as documents tell it: the distribution's own file counts as no configuration of ours."""
    return None if identity == ORIGINAL else identity


def staged() -> list[str]:
    """Ids of the staged configurations, the latest staged first."""
    try:
        entries = [entry for entry in os.scandir(ratchet()) if ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    return [entry.name for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)]


def require_staged(identity: str) -> None:
    """Raises Refused unless the configuration is there and still what its id says."""
    try:
        content = configuration_file(identity).read_bytes()
    except OSError:
        raise Refused(f"configuration {identity} is not staged here; push it first") from None
    if identity != ORIGINAL and identify(content) != identity:
        raise Refused(f"{configuration_file(identity)} was edited by hand; push it again")


def short_diff(before: bytes, after: bytes, names: tuple[str, str], limit: int) -> str:
    """A unified diff of at most `limit` lines; empty when nothing differs."""
    if before == after:
        return ""
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (before, after))
    if len(old) + len(new) > MAX_COMPARED_LINES:
        return f"(differs; {len(old)} and {len(new)} lines are too many to compare)"
    import difflib

    lines = list(difflib.unified_diff(old, new, *names, lineterm="", n=2))
    if len(lines) > limit:
        lines = [*lines[:limit], f"... {len(lines) - limit} more lines"]
    return "\n".join(lines) or "(differs in line ends or undecodable bytes only)"


def keep_edited(path: Path) -> None:
    """Keep a copy of a file that somebody edited, before it is replaced, and remember to tell of it."""
    content = path.read_bytes()
    kept = ratchet() / ORIGINAL / f"edited-{identify(content)}.conf"
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, content)
    # Going back to the baseline does not wait for a disk that is full.
    with contextlib.suppress(OSError):
        edits = kept_edits() | {str(kept): str(path)}
        write_atomically(VAR / "edits.json", json.dumps(edits).encode(), 0o600)
    log(f"kept the edited {path} as {kept}", syslog.LOG_WARNING)


def kept_edits() -> dict[str, str]:
    """Copies of edited files that nobody was told of yet by `confirm` or `rollback`: where -> which file it was."""
    try:
        return {str(kept): str(path) for kept, path in json.loads((VAR / "edits.json").read_bytes()).items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def tell_edits() -> list[str]:
    """Where edited files are kept; the answer that gives them to a person ends their being drift."""
    edits = kept_edits()
    (VAR / "edits.json").unlink(missing_ok=True)
    return sorted(edits)


def put_edits_aside() -> None:
    """Keep a copy of every configuration that somebody edited while it was on trial; what is edited goes."""
    for identity in staged():
        if identity not in {live(), confirmed()} and edited(identity):
            keep_edited(configuration_file(identity))
            remove_tree(ratchet() / identity)


# --- the record of the last confirm: what drift is measured against --------------------------------------------------


def write_record(identity: str) -> None:
    """Remember every file of the confirmed configuration."""
    try:
        contents = Tree(configuration_file(identity)).files
    except Refused as refused:
        log(f"only the main file is watched for edits: {refused}", syslog.LOG_WARNING)
        contents = {"nginx.conf": configuration_file(identity).read_bytes()}
    files = {name: content.decode("utf-8", "surrogateescape") for name, content in contents.items()}
    document = json.dumps({"id": identity, "files": files}).encode()
    write_atomically(VAR / "confirmed.json", document, 0o600)


def read_record(identity: str) -> dict[str, bytes] | None:
    """Files at the last confirm of `identity`; None when there is no such record."""
    try:
        record = json.loads((VAR / "confirmed.json").read_bytes())
        if record["id"] != identity:
            return None
        return {name: text.encode("utf-8", "surrogateescape") for name, text in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def drift() -> dict[str, str] | None:
    """What somebody changed by hand since the last confirm: file -> how it differs. None when nothing did."""
    baseline = confirmed()
    if baseline is None:
        return None
    found: dict[str, str] = {}
    record = read_record(baseline) or {}
    if not adopted():
        found["nginx.conf"] = "is not the link to ratchet/live/nginx.conf any more"
    if live() is None:
        found["ratchet/live"] = "is not a link to a staged configuration"
    for identity in sorted({baseline, live() or baseline, *staged()} - {ORIGINAL}):
        path = configuration_file(identity)
        try:
            content = path.read_bytes()
        except OSError as error:
            found[f"ratchet/{identity}/nginx.conf"] = str(error.strerror)
            continue
        if identify(content) != identity:
            before = record.get("nginx.conf", b"") if identity == baseline else b""
            difference = (
                short_diff(before, content, ("confirmed", "edited"), MAX_DRIFT_LINES) if before else "was edited"
            )
            found[f"ratchet/{identity}/nginx.conf"] = difference
    if record:
        found |= drift_of_includes(baseline, record)
    for copy, name in kept_edits().items():
        found[name] = f"was edited, and is kept as {copy}: {difference_of(Path(copy), record)}"
    return found or None


def difference_of(kept: Path, record: dict[str, bytes]) -> str:
    """How a kept file differs from the baseline's main file."""
    try:
        content = kept.read_bytes()
    except OSError as error:
        return str(error.strerror)
    return short_diff(record.get("nginx.conf", b""), content, ("confirmed", "edited"), MAX_DRIFT_LINES)


def drift_of_includes(baseline: str, record: dict[str, bytes]) -> dict[str, str]:
    """How the files that the baseline includes differ from the record's."""
    try:
        now = Tree(configuration_file(baseline)).files
    except Refused as refused:
        return {"configuration": str(refused)}
    found: dict[str, str] = {}
    for name in sorted((set(now) | set(record)) - {"nginx.conf"}):
        if name not in now:
            found[name] = "was removed"
        elif name not in record:
            found[name] = "was added"
        elif now[name] != record[name]:
            found[name] = short_diff(record[name], now[name], ("confirmed", "edited"), MAX_DRIFT_LINES)
    return found


# --- commands of the system ------------------------------------------------------------------------------------------


def log(message: str, priority: int = syslog.LOG_INFO) -> None:
    syslog.syslog(priority, message)


def run(*arguments: str, timeout: float = TEST_SECONDS) -> tuple[int, str]:
    """Run a program; returns exit code and its output (both streams). Raises Refused when it does not end."""
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A terminal's signals are for us alone.
            start_new_session=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{' '.join(arguments)} did not end within {timeout:.0f} s") from None
    except OSError as error:
        raise Refused(f"{arguments[0]}: {error.strerror}") from None
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a systemd unit."""
    code, text = run("systemctl", "show", unit, *(f"--property={name}" for name in properties))
    if code:
        raise Refused(f"systemctl show {unit}: {text[-300:]}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


# --- nginx -----------------------------------------------------------------------------------------------------------


class Process:
    """A process that cannot be mistaken for a later one of the same number: its start is part of its name."""

    __slots__ = ("pid", "start")

    def __init__(self, pid: int, start: int) -> None:
        self.pid = pid
        self.start = start

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and (self.pid, self.start) == (other.pid, other.start)

    def __hash__(self) -> int:
        return hash((self.pid, self.start))

    @property
    def alive(self) -> bool:
        return process(self.pid) == self

    @property
    def stopped(self) -> bool:
        """Alive, but somebody has stopped it: by SIGSTOP, or in a debugger."""
        fields = process_fields(self.pid)
        return fields is not None and fields[0] in {b"T", b"t"} and int(fields[19]) == self.start

    def wait_until_gone(self, seconds: float) -> None:
        """Return when it has ended, or after so long."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def process_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state on; None when there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None


def process(pid: int) -> Process | None:
    """The running process of that number; a zombie does not count."""
    fields = process_fields(pid)
    if not fields or fields[0] in {b"Z", b"X"}:
        return None
    return Process(pid, int(fields[19]))


def title(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
    except OSError:
        return ""


def children(parent: Process) -> set[Process]:
    """Running children of a process."""
    try:
        pids = [
            int(pid) for pid in (PROC / str(parent.pid) / "task" / str(parent.pid) / "children").read_bytes().split()
        ]
    except OSError:
        pids = [
            int(entry)
            for entry in (path.name for path in PROC.iterdir())
            if entry.isdigit() and (fields := process_fields(int(entry))) and int(fields[1]) == parent.pid
        ]
    return {child for pid in pids if (child := process(pid)) is not None}


def workers(parent: Process) -> list[Process]:
    """Children that serve requests and are not on their way out."""
    found = [child for child in children(parent) if title(child.pid) == "nginx: worker process"]
    return sorted(found, key=lambda child: child.pid)


def master(unit: str = SERVICE) -> Process | None:
    """The main process of nginx's service (or of a shadow's); None when it does not run."""
    try:
        pid = int(show(unit, "MainPID").get("MainPID", "0") or 0)
    except ValueError:
        return None
    return process(pid) if pid else None


def test(path: Path, name: str) -> str:
    """What `nginx -t` has against exactly that file; empty when nothing.

    The name it is tested by is beside nginx.conf, because relative includes resolve against that folder.
    """
    link = ETC / f".ratchet-check-{name}.conf"
    point(link, str(path))
    try:
        code, text = run(NGINX, "-t", "-q", "-c", str(link))
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


class Reload:
    """One reload of a running nginx: it has happened when the master has new children, and the old ones have left."""

    def __init__(self, parent: Process, error_log: Path = ERROR_LOG) -> None:
        self._parent = parent
        self._log = error_log
        with contextlib.suppress(OSError):
            self._offset = error_log.stat().st_size
        self._before = children(parent)
        try:
            os.kill(parent.pid, signal.SIGHUP)
        except ProcessLookupError:
            raise Refused("nginx's master process has ended") from None

    _offset = 0

    def _reason(self) -> tuple[str, bool]:
        """The last reason that nginx has logged since (empty when it gave none), and whether it has given up."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                lines = file.read(1 << 16).decode("utf-8", "replace").splitlines()
        except OSError:
            return "", False
        told = [emergency(line) for line in lines if "[emerg]" in line]
        reasons = [line for line in told if "still could not bind" not in line]
        return (reasons[-1][-500:] if reasons else ""), len(reasons) < len(told)

    def wait(self, *, patience: float, strict: bool) -> None:
        """Wait for the new generation, and up to `patience` seconds until the old one has left.

        Raises Refused when nginx did not take it, or (strict) when old workers stay: at once those that somebody has
        stopped (SIGSTOP, a debugger). Where that is no reason to refuse, stopped ones are killed at the end.
        """
        started = time.monotonic()
        while not children(self._parent) - self._before:
            if not self._parent.alive:
                raise Refused("nginx's master process ended during the reload")
            waited = time.monotonic() - started
            if waited > STOPPED_SECONDS and self._parent.stopped:
                raise Refused("nginx's master process is stopped (SIGSTOP, a debugger) and takes no reload")
            reason, given_up = self._reason() if waited > 1 else ("", False)
            if waited > GENERATION_SECONDS or given_up:
                raise Refused(f"nginx did not take the reload: {reason or 'it kept its old workers'}")
            time.sleep(POLL_SECONDS)
        began = time.monotonic()
        while left := [child for child in self._before if child.alive]:
            waited = time.monotonic() - began
            if strict and waited > STOPPED_SECONDS and any(child.stopped for child in left):
                raise Refused("a worker of nginx is stopped (SIGSTOP, a debugger) and does not leave")
            if waited > patience:
                if strict:
                    raise Refused(f"old workers still serve after {patience:.0f} s; set worker_shutdown_timeout")
                for child in left:
                    kill_if_stopped(child)
                return
            time.sleep(POLL_SECONDS)


def kill_if_stopped(worker: Process) -> None:
    """Kill a worker that hears no other signal: it would keep its clients waiting for ever."""
    if worker.stopped:
        log(f"nginx's worker {worker.pid} is stopped and does not leave; killing it", syslog.LOG_WARNING)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        # Whoever looks next must not take it for a new worker that has crashed.
        worker.wait_until_gone(GENERATION_SECONDS)


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
    left = set(serving) - set(workers(parent))
    if left:
        raise Refused(f"{len(left)} new worker processes of nginx have crashed")


# --- what nginx really runs ------------------------------------------------------------------------------------------


def boot_clock() -> float:
    """Seconds since boot, the clock that /proc counts a process's start in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Marker:
    """Remembers that nginx is known to run a configuration. It is taken away before anything is touched.

    It holds for the master that was reloaded and seen to answer, and for any master that started after it was
    written: that one has read the link itself.
    """

    @staticmethod
    def path() -> Path:
        return RUN / "running.json"

    @staticmethod
    def clear() -> None:
        Marker.path().unlink(missing_ok=True)

    @staticmethod
    def write(identity: str, parent: Process | None) -> None:
        document = {"id": identity, "since": boot_clock(), "master": [parent.pid, parent.start] if parent else None}
        write_atomically(Marker.path(), json.dumps(document).encode(), 0o600)

    @staticmethod
    def holds(identity: str | None, parent: Process | None) -> bool:
        """Whether nginx is known to run `identity` now."""
        if parent is None or identity is None or live() != identity or not adopted():
            return False
        try:
            document = json.loads(Marker.path().read_bytes())
            ticks = os.sysconf("SC_CLK_TCK")
            later = parent.start / ticks > document["since"]
            return bool(document["id"] == identity and (document["master"] == [parent.pid, parent.start] or later))
        except (OSError, ValueError, KeyError, TypeError):
            return False


def start_nginx() -> Process:
    """Raises Refused with nginx's own words when it does not start."""
    run("systemctl", "reset-failed", SERVICE)
    # systemd starts `boot` first, when it has not run since the host booted; it must not wait for the lock we hold.
    starting = RUN / "starting"
    starting.touch()
    try:
        code, text = run("systemctl", "start", SERVICE, timeout=60)
    finally:
        starting.unlink(missing_ok=True)
    parent = master()
    if code or parent is None:
        raise Refused(f"nginx does not start: {text[-500:] or 'see journalctl -u nginx'}")
    return parent


def run_live(identity: str, *, patience: float, strict: bool) -> Process:
    """Point `live` at a configuration and make nginx run it; returns the master. Raises Refused."""
    directives: list[Directive] = []
    # What we cannot read is no reason not to go back to it: nginx has the last word.
    with contextlib.suppress(Refused):
        directives = Tree(configuration_file(identity)).directives
    Marker.clear()
    if live() != identity:
        point(live_link(), identity)
    parent = master()
    if parent is None:
        parent = start_nginx()
    else:
        Reload(parent).wait(patience=patience, strict=strict)
    check_health(parent, directives)
    Marker.write(identity, parent)
    return parent


def switch(identity: str, *, patience: float = OLD_WORKERS_SECONDS, strict: bool = True) -> float:
    """Make a configuration live, or put the previous one back; returns seconds taken. Raises Refused."""
    started = time.monotonic()
    previous = live()
    try:
        run_live(identity, patience=patience, strict=strict)
    except (Refused, OSError) as error:
        if previous is None or previous == identity:
            raise
        try:
            run_live(previous, patience=RESTORE_SECONDS, strict=False)
        except (Refused, OSError) as second:
            raise Refused(f"{explain(error)}; and {previous} could not be put back: {explain(second)}") from None
        raise Refused(f"{explain(error)}; {previous} is live again") from None
    return time.monotonic() - started


def restore() -> bool:
    """Make the confirmed configuration live, whatever was going on. True when something had to be done.

    What somebody edited meanwhile and is in the way is kept as a copy. Raises Refused when nginx could not be shown to
    run the confirmed configuration; the link points to it then all the same.
    """
    changed = make_confirmed_live()
    with contextlib.suppress(OSError):
        put_edits_aside()
    return changed


def make_confirmed_live() -> bool:
    stop_shadows()
    baseline = confirmed()
    if baseline is None:
        return False
    if Marker.holds(baseline, master()):
        return False
    log(f"restoring {baseline}")
    Marker.clear()
    if live() != baseline:
        point(live_link(), baseline)
    if not adopted():
        adopt()
    if edited(baseline):
        heal(baseline)
    problem = test(live_link() / "nginx.conf", "restore")
    if problem:
        raise Refused(f"nginx refuses the confirmed configuration {baseline}: {problem}")
    free_stopped_master()
    run_live(baseline, patience=RESTORE_SECONDS, strict=False)
    return True


def free_stopped_master() -> None:
    """A master that somebody has stopped (SIGSTOP, a debugger) takes no reload, and its workers would go on serving
    what is not confirmed: kill it with them, so that it is started anew.
    """
    parent = master()
    if parent is not None and parent.stopped:
        log("nginx's master process is stopped; killing nginx to start it with the baseline", syslog.LOG_WARNING)
        run("systemctl", "kill", "--signal=KILL", SERVICE)
        parent.wait_until_gone(GENERATION_SECONDS)


def explain(error: BaseException) -> str:
    """An error as one line for people."""
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}"
    return str(error)


# --- locks -----------------------------------------------------------------------------------------------------------


class Lock:
    """An exclusive lock that its holder's death frees; it tells who holds it."""

    def __init__(self, name: str) -> None:
        self._path = RUN / name
        self._descriptor: int | None = None

    def take(self, timeout: float = 0) -> bool:
        """True when it is ours, within `timeout` seconds."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.02)
        own = process(os.getpid())
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {own.start if own else 0}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def free(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> Process | None:
        """Who holds it; None when nobody does."""
        if self.take():
            self.free()
            return None
        try:
            pid, start = (int(word) for word in self._path.read_bytes().split())
        except (OSError, ValueError):
            return None
        holder = Process(pid, start)
        return holder if holder.alive else None

    def wrest(self, grace: float) -> None:
        """Take it from its holder: ask it to end, and kill it when it has not after `grace` seconds. Raises Refused."""
        holder = self.holder()
        if holder is not None and holder.pid != os.getpid():
            log(f"ending process {holder.pid}, which holds {self._path.name}", syslog.LOG_WARNING)
            for number in (signal.SIGTERM, signal.SIGCONT) if grace else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder.pid, number)
            if grace and self.take(grace):
                return
            if holder.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder.pid, signal.SIGKILL)
        if not self.take(10):
            raise Refused(f"{self._path} is held by a process that does not end")


@contextlib.contextmanager
def changing(timeout: float = 30) -> Iterator[None]:
    """Hold the lock that every change of the host's state takes."""
    lock = Lock("lock")
    if not lock.take(timeout):
        raise Refused("another ratchet-host is at work on this host; try again in a moment")
    try:
        yield
    finally:
        lock.free()


def refuse_during_session() -> None:
    if Lock("session.lock").holder() is not None:
        raise Refused("a trial is running on this host; wait for it to end, or end it with: ratchet-host rollback")


# --- the lease -------------------------------------------------------------------------------------------------------

_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "month": 2629800,
    "y": 31557600,
}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|min|h|d|w|month|y)")


def parse_span(text: str) -> float | None:
    """Seconds of a time span as systemd prints it ("15min 47.7s"); None for infinity and the like."""
    words = text.split()
    parts = [_SPAN.fullmatch(word) for word in words]
    if not words or not all(parts):
        return None
    return sum(float(part[1]) * _UNITS[part[2]] for part in parts if part)


def lease_left() -> float | None:
    """Seconds until the lease ends, by systemd's own account; None when it is not armed."""
    state = show(f"{LEASE}.timer", "ActiveState", "SubState", "NextElapseUSecMonotonic")
    if state.get("ActiveState") != "active" or state.get("SubState") != "waiting":
        return None
    due = parse_span(state.get("NextElapseUSecMonotonic", ""))
    return None if due is None else due - time.clock_gettime(time.CLOCK_MONOTONIC)


def require_lease(seconds: float) -> None:
    """Raises Refused unless the lease is pending and ends within `seconds`."""
    left = lease_left()
    if left is None:
        raise Refused("the lease is not armed: its timer is gone; nothing is switched")
    if not -1 <= left <= seconds + 1:
        raise Refused(f"the lease's timer is due in {left:.0f} s instead of {seconds:.0f} s; nothing is switched")


def arm(seconds: int) -> None:
    """Start the lease anew. Raises Refused when it is not pending afterwards; the baseline is live then."""
    disarm()
    run("systemctl", "reset-failed", f"{LEASE}.timer", f"{LEASE}.service")
    # systemd's monotonic clock: a jump of the wall clock does not matter.
    code, text = run(
        "systemd-run",
        "--quiet",
        f"--unit={LEASE}",
        f"--on-active={seconds}s",
        "--timer-property=AccuracySec=100ms",
        "--timer-property=RemainAfterElapse=no",
    )
    try:
        if code:
            raise Refused(f"the lease cannot be armed, so nothing is switched: {text[-300:]}")
        require_lease(seconds)
    except Refused:
        restore()
        raise


def renew(seconds: int) -> None:
    """Let the running lease start anew. Raises Refused when there was none to renew."""
    require_lease(seconds)
    code, text = run("systemctl", "restart", f"{LEASE}.timer")
    if code:
        raise Refused(f"the lease cannot be renewed: {text[-300:]}")
    require_lease(seconds)


def disarm() -> None:
    """End the lease, and the attempts of one that has run out and could not restore the baseline."""
    run("systemctl", "stop", f"{LEASE}.timer", f"{LEASE}.service")


# --- the claim: which controller's run has this host ------------------------------------------------------------------


class Claim:
    """A run's word that it is at work on this host. It ends by itself: with its time (suspended time counts), or a
    reboot. It keeps other controllers away; it is no lease, and no command of a person asks for it."""

    def __init__(self, run: str, holder: str, since: str, seconds: int, until: float) -> None:
        self.run = run
        self.holder = holder
        self.since = since
        self.seconds = seconds
        self.until = until

    @staticmethod
    def path() -> Path:
        return RUN / "claim.json"

    @staticmethod
    def read() -> Claim | None:
        """The claim that holds now; None when there is none, or when it has run out."""
        try:
            told = json.loads(Claim.path().read_bytes())
            claim = Claim(
                str(told["run"]), str(told["holder"]), str(told["since"]), int(told["seconds"]), float(told["until"])
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return claim if 0 < claim.left <= claim.seconds else None

    @property
    def left(self) -> float:
        return self.until - boot_clock()

    def write(self) -> None:
        document = {name: getattr(self, name) for name in ("run", "holder", "since", "seconds", "until")}
        write_atomically(Claim.path(), json.dumps(document).encode(), 0o600)

    def extend(self) -> None:
        self.until = boot_clock() + self.seconds
        self.write()

    def document(self) -> dict[str, Any]:
        return {"run": self.run, "holder": self.holder, "since": self.since, "seconds_left": round(self.left, 1)}


@contextlib.contextmanager
def claiming() -> Iterator[Claim | None]:
    """Hold the lock that every change of the claim takes; gives the claim that holds now."""
    lock = Lock("claim.lock")
    if not lock.take(10):
        raise Refused("another ratchet-host is at work on this host's claim; try again in a moment")
    try:
        yield Claim.read()
    finally:
        lock.free()


def ended_runs() -> dict[str, float]:
    """Runs that a take-over has ended, and until when they are refused: long enough to learn it."""
    try:
        told = json.loads((RUN / "ended.json").read_bytes())
        return {str(run): float(until) for run, until in told.items() if float(until) > boot_clock()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def command_claim(holder: str, run_name: str, seconds: int, end: str | None = None) -> dict[str, Any]:
    """Claim the host, or renew. A holder makes one run at a time: its earlier run is over, and gives way.

    `end`: a run that gives way too, and is refused for `seconds` from now on.
    """
    with claiming() as held:
        ended = ended_runs()
        if run_name in ended:
            problem = f"run {run_name} was taken over and is at an end"
        elif held is not None and held.run not in {run_name, end} and held.holder != holder:
            problem = f"claimed by run {held.run} of {held.holder} since {held.since}"
        else:
            problem = ""
        if problem:
            return {"ok": False, "error": problem, "claim": held.document() if held else None}
        if end:
            ended[end] = boot_clock() + seconds
            write_atomically(RUN / "ended.json", json.dumps(ended).encode(), 0o600)
        same = held if held is not None and held.run == run_name else None
        replaced = held if same is None else None
        since = same.since if same else time.strftime(TIME, time.gmtime())
        claim = Claim(run_name, holder, since, seconds, boot_clock() + seconds)
        claim.write()
    if same is None:
        log(f"claimed by run {run_name} of {holder}")
    return {
        "ok": True,
        "changed": same is None,
        "claim": claim.document(),
        "replaced": replaced.document() if replaced else None,
    }


def command_release(run_name: str) -> dict[str, Any]:
    """End that run's claim; another's stays."""
    with claiming() as held:
        ours = held is not None and held.run == run_name
        if ours:
            Claim.path().unlink(missing_ok=True)
            log(f"run {run_name} released its claim")
    return {"ok": True, "changed": ours, "claim": held.document() if held and not ours else None}


def extend_claim() -> None:
    """A session that is renewed shows that its run lives."""
    claim = Claim.read()
    # Every heartbeat asks; once in a while is enough.
    if claim is not None and claim.left < claim.seconds * 0.8:
        with claiming() as held:
            if held is not None:
                held.extend()


# --- stage -----------------------------------------------------------------------------------------------------------


def read_input(limit: int) -> bytes:
    content = sys.stdin.buffer.read(limit + 1)
    if len(content) > limit:
        raise Refused(f"the input is larger than {limit >> 20} MiB")
    return content


def parse_configurations(content: bytes) -> tuple[dict[str, bytes], int]:
    """Label -> text of each configuration, and how many old ones to keep. Raises Refused."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the input is not JSON: {error}") from None
    if not isinstance(document, dict) or set(document) - {"configurations", "keep"}:
        raise Refused("the input must be an object with `configurations` and `keep`")
    keep = document.get("keep", 20)
    if not isinstance(keep, int) or isinstance(keep, bool) or not 0 <= keep <= 1000:
        raise Refused("keep: expected a number from 0 to 1000")
    configurations = document.get("configurations")
    if not isinstance(configurations, dict) or not 1 <= len(configurations) <= MAX_CONFIGURATIONS:
        raise Refused(f"configurations: expected an object of 1 to {MAX_CONFIGURATIONS}")
    texts: dict[str, bytes] = {}
    for label, text in configurations.items():
        if not LABEL.fullmatch(label):
            raise Refused(f"configurations: {label[:80]!r} is not a label")
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise Refused(f"configurations.{label}: expected the text of a configuration")
        try:
            texts[label] = text.encode()
        except UnicodeEncodeError:
            raise Refused(f"configurations.{label}: is not valid Unicode") from None
        if len(texts[label]) > MAX_CONFIGURATION:
            raise Refused(f"configurations.{label}: larger than {MAX_CONFIGURATION >> 20} MiB")
    return texts, keep


def keep_original() -> None:
    """Keep the distribution's nginx.conf, once, before anything of ours may take its place."""
    kept = configuration_file(ORIGINAL)
    if kept.exists() or adopted():
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, (ETC / "nginx.conf").read_bytes())
    sync_directory(ratchet())


def live_text() -> bytes:
    try:
        return (ETC / "nginx.conf").read_bytes()
    except OSError:
        return b""


def stage_one(content: bytes, *, check: bool) -> dict[str, Any]:
    """Place one configuration and test it; returns its part of the answer. A bad one does not stay."""
    identity = identify(content)
    path = configuration_file(identity)
    present = path.is_file() and path.read_bytes() == content
    if present:
        problem = test(path, identity)
    elif check:
        folder = RUN / f"check-{identity}"
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            write_atomically(folder / "nginx.conf", content)
            problem = test(folder / "nginx.conf", identity)
        finally:
            remove_tree(folder)
    else:
        # An edit by hand of what is live stays until somebody confirms; confirm then keeps a copy of it.
        protected = identity in {live(), confirmed()} and path.is_file()
        candidate = ratchet() / f".new-{identity}" / "nginx.conf"
        candidate.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(candidate, content)
            problem = test(candidate, identity)
            if not problem and protected:
                write_atomically(pristine_file(identity), content)
            elif not problem:
                place(candidate.parent, identity)
        finally:
            remove_tree(candidate.parent)
    if present and not check:
        os.utime(path.parent)
    return {
        "id": identity,
        "ok": not problem,
        "changed": not present and not problem,
        "error": problem,
        "diff_from_live": short_diff(live_text(), content, ("live", identity), MAX_DIFF_LINES),
    }


def place(folder: Path, identity: str) -> None:
    """Move a tested folder to its id's name."""
    final = ratchet() / identity
    if edited(identity):
        keep_edited(configuration_file(identity))
    if final.exists():
        remove_tree(final)
    folder.rename(final)
    sync_directory(ratchet())


def prune(keep: int, wanted: set[str]) -> None:
    """Remove the longest-unused configurations beyond `keep`; never what is live, confirmed or wanted."""
    put_edits_aside()
    spared = wanted | {live(), confirmed()}
    for identity in [identity for identity in staged() if identity not in spared][keep:]:
        remove_tree(ratchet() / identity)


def command_stage(*, check: bool) -> dict[str, Any]:
    texts, keep = parse_configurations(read_input(MAX_INPUT))
    if not (ETC / "nginx.conf").exists():
        raise Refused("/etc/nginx/nginx.conf does not exist: install nginx first (playbooks/site.yml)")
    with changing():
        if not check:
            ratchet().mkdir(mode=0o755, exist_ok=True)
            keep_original()
        answers = {label: stage_one(content, check=check) for label, content in texts.items()}
        if not check and Lock("session.lock").holder() is None:
            stop_shadows()
            prune(keep, {answer["id"] for answer in answers.values()})
        difference = drift()
    failed = [f"{label}: {answer['error']}" for label, answer in answers.items() if not answer["ok"]]
    changed = any(answer["changed"] for answer in answers.values())
    if changed and not check:
        log("staged " + ", ".join(f"{label} {answer['id']}" for label, answer in answers.items() if answer["changed"]))
    document: dict[str, Any] = {
        "ok": not failed,
        "changed": changed,
        "live": shown(live()),
        "confirmed": shown(confirmed()),
        "drift": difference,
        "configurations": answers,
    }
    if failed:
        document["error"] = "nginx refuses " + "; ".join(failed)
    return document


# --- confirm, switch, rollback ---------------------------------------------------------------------------------------


def adopt() -> bool:
    """Make /etc/nginx/nginx.conf the link to what is live, with the same content as before; True when it was not."""
    if adopted() and live() is not None and confirmed() is not None:
        return False
    if not adopted():
        configuration = ETC / "nginx.conf"
        if (
            configuration_file(ORIGINAL).exists()
            and configuration.exists()
            and configuration.read_bytes() != configuration_file(ORIGINAL).read_bytes()
        ):
            keep_edited(configuration)
        keep_original()
    for link in (live_link(), confirmed_link()):
        if pointed(link) is None:
            require_staged(ORIGINAL)
            point(link, ORIGINAL)
    if not adopted():
        point(ETC / "nginx.conf", "ratchet/live/nginx.conf")
        log("adopted /etc/nginx/nginx.conf; the file that was there is in ratchet/original/")
    return True


def make_baseline(identity: str) -> float:
    """Under a lease that is armed: switch, and only then move `confirmed`; returns seconds the switch took.

    Raises Refused or OSError with the old baseline live.
    """
    try:
        seconds = switch(identity, patience=5, strict=False)
        write_record(identity)
        if confirmed() != identity:
            point(confirmed_link(), identity)
    except (Refused, OSError):
        restore()
        disarm()
        raise
    disarm()
    return seconds


def command_confirm(identity: str) -> dict[str, Any]:
    refuse_during_session()
    with changing():
        path = configuration_file(identity)
        differences = drift()
        healed = identity in {live(), confirmed()} and edited(identity)
        if healed:
            heal(identity)
        require_staged(identity)
        problem = test(path, identity)
        if problem:
            raise Refused(f"nginx refuses {identity}: {problem}")
        before = confirmed()
        seconds = 0.0
        changed = healed or before != identity or live() != identity
        if adopted() and Marker.holds(identity, master()) and before == identity and drift() is None:
            disarm()
        else:
            arm(CONFIRM_LEASE)
            changed = adopt() or changed
            seconds = make_baseline(identity)
            log(f"confirmed {identity} (before: {before})")
        put_edits_aside()
        saved = tell_edits()
        difference = drift()
    document: dict[str, Any] = {
        "ok": True,
        "changed": changed,
        "live": shown(live()),
        "confirmed": shown(confirmed()),
        "previous": shown(before),
        "drift": difference,
        "adopted": differences,
        "saved": saved,
        "seconds": round(seconds, 3),
    }
    return document


def edited(identity: str) -> bool:
    """Whether the file of a configuration is there, and is not what its id says."""
    path = configuration_file(identity)
    return identity != ORIGINAL and path.is_file() and identify(path.read_bytes()) != identity


def heal(identity: str) -> None:
    """Undo an edit by hand of a file that is live; the edited one is kept."""
    pristine = pristine_file(identity)
    original = pristine.read_bytes() if pristine.is_file() else (read_record(identity) or {}).get("nginx.conf", b"")
    if identify(original) != identity:
        raise Refused(f"{configuration_file(identity)} was edited by hand; push it again")
    keep_edited(configuration_file(identity))
    write_atomically(configuration_file(identity), original)
    pristine.unlink(missing_ok=True)
    Marker.clear()


def command_switch(identity: str, lease: int) -> dict[str, Any]:
    """For people: the configuration stays for the lease, unless it is confirmed before."""
    refuse_during_session()
    with changing():
        if not adopted() or confirmed() is None:
            raise Refused(
                "nothing is confirmed on this host yet, so there is no way back; confirm a configuration first"
            )
        require_staged(identity)
        problem = test(configuration_file(identity), identity)
        if problem:
            raise Refused(f"nginx refuses {identity}: {problem}")
        changed = not Marker.holds(identity, master())
        if identity != confirmed():
            arm(lease)
        try:
            seconds = switch(identity) if changed else 0.0
        except (Refused, OSError):
            restore()
            disarm()
            raise
        if identity == confirmed():
            disarm()
        log(f"switched to {identity}")
    return {
        "ok": True,
        "changed": changed,
        "live": shown(live()),
        "confirmed": shown(confirmed()),
        "lease_seconds": None if identity == confirmed() else lease,
        "seconds": round(seconds, 3),
    }


def command_rollback(identity: str | None) -> dict[str, Any]:
    session = Lock("session.lock")
    session.wrest(grace=8)
    try:
        with changing():
            if confirmed() is None:
                raise Refused("nothing is confirmed on this host yet; there is nothing to roll back to")
            before = (live(), confirmed())
            changed = adopt()
            baseline = confirmed()
            if baseline is not None and edited(baseline):
                heal(baseline)
                changed = True
            if identity is not None and identity != confirmed():
                require_staged(identity)
                problem = test(configuration_file(identity), identity)
                if problem:
                    raise Refused(f"nginx refuses {identity}: {problem}")
                arm(CONFIRM_LEASE)
                make_baseline(identity)
                changed = True
            restored = restore()
            disarm()
            changed = changed or before != (live(), confirmed())
            saved = tell_edits()
            difference = drift()
            if restored or changed:
                log(f"rolled back to {confirmed()}")
    finally:
        session.free()
    return {
        "ok": True,
        "changed": changed,
        "live": shown(live()),
        "confirmed": shown(confirmed()),
        "drift": difference,
        "saved": saved,
        "verified": True,
    }


# --- status ----------------------------------------------------------------------------------------------------------


def nginx_version() -> str:
    _, text = run(NGINX, "-v")
    match = re.search(r"nginx/(\S+)", text)
    return match[1] if match else ""


def command_status() -> dict[str, Any]:
    parent = master()
    left = lease_left()
    identity = live()
    fingerprint = None
    if identity is not None:
        with contextlib.suppress(Refused):
            fingerprint = Tree(configuration_file(identity)).fingerprint()
    session = Lock("session.lock").holder()
    claim = Claim.read()
    lease = None
    if left is not None or session is not None:
        lease = {
            "seconds_left": None if left is None else round(left, 1),
            "session": session.pid if session else None,
        }
    return {
        "ok": True,
        "version": VERSION,
        "live": shown(identity),
        "confirmed": shown(confirmed()),
        "fingerprint": fingerprint,
        "verified": Marker.holds(identity, parent),
        "drift": drift(),
        "lease": lease,
        "claim": claim.document() if claim else None,
        "nginx": {
            "version": nginx_version(),
            "running": parent is not None,
            "workers": len(workers(parent)) if parent else 0,
        },
        "staged": staged(),
    }


# --- expire, boot ----------------------------------------------------------------------------------------------------


def command_expire() -> dict[str, Any]:
    """The lease has run out: whoever holds the host has lost it."""
    log("the lease has run out", syslog.LOG_WARNING)
    session = Lock("session.lock")
    session.wrest(grace=0)
    lock = Lock("lock")
    lock.wrest(grace=0)
    try:
        changed = restore()
    finally:
        lock.free()
        session.free()
    return {"ok": True, "changed": changed, "live": shown(live()), "confirmed": shown(confirmed())}


def command_boot() -> dict[str, Any]:
    """Before nginx starts: what was not confirmed does not survive a power cut."""
    lock = Lock("lock")
    deadline = time.monotonic() + BOOT_SECONDS
    while not lock.take():
        if (RUN / "starting").exists():
            # Another ratchet-host starts nginx, and answers for what it runs.
            return {"ok": True, "changed": False, "live": shown(live()), "confirmed": shown(confirmed())}
        if time.monotonic() > deadline:
            raise Refused("another ratchet-host is at work on this host and does not end")
        time.sleep(0.05)
    try:
        stop_shadows()
        for leftover in ETC.glob(".ratchet-*.conf"):
            leftover.unlink(missing_ok=True)
        baseline = confirmed()
        changed = baseline is not None and live() != baseline
        if master() is not None:
            changed = restore()
        elif baseline is not None:
            Marker.clear()
            if changed:
                point(live_link(), baseline)
                log(f"restored {baseline} before nginx starts")
            Marker.write(baseline, None)
    finally:
        lock.free()
    return {"ok": True, "changed": changed, "live": shown(live()), "confirmed": shown(baseline)}


# --- figures of nginx's processes ------------------------------------------------------------------------------------


def cpu_ns(pid: int) -> int:
    """CPU time of a process: by the scheduler's own count where the kernel keeps one, else in clock ticks."""
    total = 0
    try:
        for task in (PROC / str(pid) / "task").iterdir():
            total += int((task / "schedstat").read_bytes().split()[0])
        return total
    except (OSError, ValueError, IndexError):
        fields = process_fields(pid)
        return (int(fields[11]) + int(fields[12])) * ticks_ns() if fields else 0


def ticks_ns() -> int:
    return 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Figures:
    """CPU time, memory and open files of one nginx, workers that have ended included."""

    def __init__(self) -> None:
        self._totals: dict[Process, int] = {}

    def read(self, parent: Process) -> dict[str, int]:
        """`cpu_us` never falls. A worker's time moves to its master's account of children when it ends."""
        for _ in range(5):
            family = [parent, *children(parent)]
            fields = process_fields(parent.pid)
            spent = sum(cpu_ns(member.pid) for member in family)
            if fields:
                spent += (int(fields[13]) + int(fields[14])) * ticks_ns()
            if set(family[1:]) == children(parent):
                break
        self._totals[parent] = max(spent, self._totals.get(parent, 0))
        rss = files = 0
        for member in family:
            with contextlib.suppress(OSError, ValueError, IndexError):
                rss += int((PROC / str(member.pid) / "statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                files += sum(1 for _ in (PROC / str(member.pid) / "fd").iterdir())
        return {"cpu_us": sum(self._totals.values()) // 1000, "rss_bytes": rss, "open_files": files}


class ErrorLog:
    """Counts what an nginx has logged as an error since the first look."""

    ERRORS = re.compile(rb"^[0-9/]{10} [0-9:]{8} \[(?:error|crit|alert|emerg)\] (.*)$", re.MULTILINE)
    MOST_BYTES = 4 << 20

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path = path
        self._place: tuple[int, int] | None = None
        self._lines = self._upstream = 0

    def read(self) -> dict[str, int]:
        """Totals that never fall; empty where the log cannot be read. A line that is not ended yet counts next time."""
        try:
            with self._path().open("rb") as file:
                inode, size = os.fstat(file.fileno()).st_ino, os.fstat(file.fileno()).st_size
                if self._place is None:
                    self._place = (inode, size)
                elif self._place[0] != inode or self._place[1] > size:
                    self._place = (inode, 0)  # rotated
                file.seek(max(self._place[1], size - self.MOST_BYTES))
                content = file.read(self.MOST_BYTES)
                whole = content.rfind(b"\n") + 1
                self._place = (inode, file.tell() - len(content) + whole)
        except OSError:
            return {}
        told = self.ERRORS.findall(content[:whole])
        self._lines += len(told)
        self._upstream += sum(b"upstream" in line for line in told)
        return {"error_log_lines": self._lines, "upstream_errors": self._upstream}


# --- shadow instances ------------------------------------------------------------------------------------------------

INSTANCES = ("a", "b")
FIRST_PORT = {"a": 21000, "b": 22000}
PORT_RANGE = 1000
MAX_PORTS = 200
# A shadow that outlives everything that should have ended it.
SHADOW_SECONDS = 6 * 3600
LEAST_MEMORY = 96 << 20
SHADOW_FOLDER = "shadow-"

# Blocks whose lines are data: their first words are no directives.
DATA_BLOCKS = {"map", "geo", "types", "split_clients", "charset_map", "match"}
PATH_DIRECTIVES = re.compile(r"access_log|error_log|\w+_temp_path|\w+_cache_path")
NOT_A_FILE = re.compile(r"off$|stderr$|syslog:|memory:")
SOCKET_OPTION = re.compile(
    r"(setfib|fastopen|backlog|rcvbuf|sndbuf|accept_filter|so_keepalive)=|deferred$|bind$|reuseport$"
)


class ShadowText:
    """Rewrites a configuration so that a second nginx can run it beside the live one and share nothing with it.

    Every listen address becomes the instance's own port on 127.0.0.1; logs, caches and temporary files move under its
    own folder. All else stays as it is: sites, upstreams, certificates, limits.
    """

    def __init__(self, directives: list[Directive], run: Path, data: Path, allocate: Callable[[str, int], int]) -> None:
        self.folders: set[Path] = set()
        self.ports: dict[int, int] = {}
        self._run = run
        self._data = data
        self._allocate = allocate
        self._once: set[tuple[str, int, str]] = set()
        self.text = self._rewrite(directives)

    def _rewrite(self, directives: list[Directive]) -> str:
        for directive in directives:
            self._move(directive)
        for kind in ("http", "stream", "mail"):
            blocks = [server.block for server in servers(directives, kind) if server.block is not None]
            reach = self._reachable(blocks, kind)
            for block in blocks:
                self._listen(block, kind, reach)
        own = [statement("pid", str(self._run / "nginx.pid"))]
        if not any(directive.name == "error_log" for directive in directives):
            own.append(statement("error_log", self._own("/var/log/nginx/error.log")))
        for http in directives:
            if http.name == "http" and http.block is not None:
                http.block[:0] = self._defaults(http.block)
        replaced = {"pid", "daemon", "master_process", "lock_file"}
        return render(own + [directive for directive in directives if directive.name not in replaced])

    def _defaults(self, http: list[Directive]) -> list[Directive]:
        """What nginx would put at compiled-in places, which are the live instance's."""
        present = {directive.name for directive in http}
        own = []
        if "access_log" not in present:
            own.append(statement("access_log", self._own("/var/log/nginx/access.log")))
        for name, path in compiled_in_paths().items():
            if name not in present:
                own.append(statement(name, self._own(path)))
        return own

    def _move(self, directive: Directive) -> None:
        """Move the files that a directive writes, at any depth, under the instance's folder."""
        if directive.raw is not None:
            raise Refused(f"line {directive.line}: {directive.name}: Lua runs in no shadow; use the design switchback")
        words = directive.words
        if len(words) > 1 and PATH_DIRECTIVES.fullmatch(directive.name) and not NOT_A_FILE.match(plain(words[1])):
            words[1] = quote(self._own(plain(words[1])))
        if directive.block is not None and directive.name not in DATA_BLOCKS:
            for inner in directive.block:
                self._move(inner)

    def _own(self, path: str) -> str:
        """The instance's place for a path of the live one; its folder is remembered, to be created."""
        absolute = os.path.normpath(os.path.join("/usr/share/nginx", path))  # noqa: PTH118
        own = f"{self._data}/{absolute.lstrip('/')}"
        self.folders.add(
            Path(own.partition("$")[0]).parent if "$" not in own else Path(own.partition("$")[0] + "x").parent
        )
        return own

    @staticmethod
    def _reachable(blocks: list[list[Directive]], kind: str) -> dict[tuple[str, int], int]:
        """How directly each port is reached by a client of 127.0.0.1: the live nginx prefers the exact address."""
        reach: dict[tuple[str, int], int] = {}
        for block in blocks:
            for host, ports, protocol, _ in listens_of(block, kind):
                for port in ports:
                    reach[protocol, port] = max(rank(host), reach.get((protocol, port), 0))
        return reach

    def _listen(self, block: list[Directive], kind: str, reach: dict[tuple[str, int], int]) -> None:
        """Replace the listen directives of one server."""
        own: list[Directive] = []
        here: set[tuple[str, int]] = set()
        for host, ports, protocol, flags in listens_of(block, kind):
            for port in ports:
                key = (protocol, port)
                if key in here or rank(host) < reach[key]:
                    continue
                here.add(key)
                target = self._allocate(protocol, port)
                if protocol == "tcp":
                    self.ports[port] = target
                own.append(statement("listen", f"127.0.0.1:{target}", *self._flags(key, flags)))
        if not own:
            # A server that no client of 127.0.0.1 reaches; without a listen directive it would take port 80.
            own.append(statement("listen", f"unix:{self._run}/unreached.sock"))
        block[:] = own + [directive for directive in block if directive.name != "listen"]

    def _flags(self, key: tuple[str, int], flags: list[str]) -> list[str]:
        """The options that fit: those of the socket and of the default server once for each port."""
        kept = []
        for flag in flags:
            once = "default" if flag in {"default", "default_server"} else "socket" if SOCKET_OPTION.match(flag) else ""
            if flag.startswith("ipv6only=") or (once and (*key, once) in self._once):
                continue
            kept.append(flag)
        for flag in kept:
            if flag in {"default", "default_server"}:
                self._once.add((*key, "default"))
        # nginx takes socket options from one listen directive of an address only.
        self._once.add((*key, "socket"))
        return kept


def statement(*words: str) -> Directive:
    return Directive([words[0], *(quote(word) for word in words[1:])], 0)


def quote(word: str) -> str:
    """A word as nginx reads it back, variables in it kept."""
    if re.fullmatch(r"[A-Za-z0-9_./:$\[\]=@%+~,-]+", word):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def listens_of(block: list[Directive], kind: str) -> list[tuple[str, range, str, list[str]]]:
    """Host, ports, protocol and options of a server's listen directives; sockets in the file system left out."""
    found = []
    listens = [directive.arguments for directive in block if directive.name == "listen"]
    for words in listens or ([["80"]] if kind == "http" else []):
        if not words or words[0].startswith("unix:"):
            continue
        host, ports = split_address(words[0])
        if len(ports) > MAX_PORTS:
            raise Refused(f"listen {words[0]}: too many ports for a shadow instance; use the design switchback")
        found.append((host, ports, "udp" if {"udp", "quic"} & set(words[1:]) else "tcp", words[1:]))
    return found


def compiled_in_paths() -> dict[str, str]:
    """Where nginx keeps temporary files unless told otherwise: directive -> path."""
    _, text = run(NGINX, "-V")
    return {
        f"{name.replace('-', '_')}_temp_path".replace("_temp_temp", "_temp"): path
        for name, path in re.findall(r"--http-(client-body|proxy|fastcgi|uwsgi|scgi)-temp-path=(\S+)", text)
        if f"--without-http_{name}_module" not in text
    }


def port_is_free(protocol: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Shadow:
    """One shadow instance: a second nginx under a transient unit of systemd's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unit = f"ratchet-shadow-{name}.service"
        self.run = RUN / f"{SHADOW_FOLDER}{name}"
        self.data = VAR / f"{SHADOW_FOLDER}{name}"
        # Beside nginx.conf, because names in it are relative to its folder.
        self.link = ETC / f".ratchet-shadow-{name}.conf"
        self.ports: dict[tuple[str, int], int] = {}
        self.figures = Figures()
        self.errors = ErrorLog(self._error_log)
        self._tested: set[str] = set()
        self._reload: Reload | None = None
        self._parent: Process | None = None

    def allocate(self, protocol: str, port: int) -> int:
        """The instance's own port for a port of the live one; the same one for as long as the instance lives."""
        known = self.ports.get((protocol, port))
        if known is not None:
            return known
        if len(self.ports) >= MAX_PORTS:
            raise Refused("the configuration listens on too many ports for a shadow; use the design switchback")
        first = FIRST_PORT[self.name]
        for offset in range(PORT_RANGE):
            own = first + (port + offset) % PORT_RANGE
            if own not in self.ports.values() and port_is_free(protocol, own):
                self.ports[protocol, port] = own
                return own
        raise Refused(f"no free port from {first} to {first + PORT_RANGE - 1} for a shadow instance")

    def begin(self, identity: str, limits: list[str]) -> dict[int, int]:
        """Give it a configuration: start it, or reload it without waiting; returns port -> own port."""
        tree = Tree(configuration_file(identity))
        shadow = ShadowText(tree.directives, self.run, self.data, self.allocate)
        for folder in (self.run, self.data):
            folder.mkdir(exist_ok=True)
        for folder in sorted(shadow.folders):
            self._create(folder)
        write_atomically(self.run / "nginx.conf", shadow.text.encode("utf-8", "surrogateescape"))
        if self.link.is_symlink() is False:
            point(self.link, str(self.run / "nginx.conf"))
        text = hashlib.sha256(shadow.text.encode("utf-8", "surrogateescape")).hexdigest()
        if text not in self._tested:
            problem = test(self.run / "nginx.conf", f"shadow-{self.name}")
            if problem:
                raise Refused(f"a shadow instance cannot run {identity}: {problem}")
            self._tested.add(text)
        if self._parent is not None and self._parent.alive:
            self._reload = Reload(self._parent, self._error_log())
        else:
            self._reload = None
            self._parent = self._start(limits)
        return shadow.ports

    def _create(self, folder: Path) -> None:
        """A folder below `data`, each part with the owner and mode of the live one's, whose workers may write to it.

        Raises Refused where another user could have put a link in the way.
        """
        own, theirs = self.data, Path("/")
        for part in folder.relative_to(self.data).parts:
            parent, own, theirs = own, own / part, theirs / part
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(own.lstat().st_mode):
                    raise Refused(f"{own} is not a folder")
                continue
            if parent.lstat().st_uid != 0:
                raise Refused(
                    f"a shadow instance needs {theirs}, in a folder that is not root's; use the design switchback"
                )
            own.mkdir()
            with contextlib.suppress(FileNotFoundError):
                status = theirs.stat()
                os.chown(own, status.st_uid, status.st_gid)
                own.chmod(stat.S_IMODE(status.st_mode))

    def _error_log(self) -> Path:
        return self.data / "var/log/nginx/error.log"

    def _start(self, limits: list[str]) -> Process:
        code, text = run(
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={self.unit}",
            "--service-type=exec",
            "--description=Shadow instance of nginx for a trial",
            *(f"--property={limit}" for limit in limits),
            NGINX,
            "-c",
            str(self.link),
            "-g",
            "daemon off;",
            timeout=20,
        )
        parent = master(self.unit)
        if code or parent is None:
            raise Refused(f"shadow instance {self.name} does not start: {text[-300:] or self._last_words()}")
        return parent

    def _last_words(self) -> str:
        try:
            return self._error_log().read_text(errors="replace").strip().splitlines()[-1][-300:]
        except (OSError, IndexError):
            return f"see journalctl -u {self.unit}"

    def finish(self, ports: dict[int, int]) -> None:
        """Wait until it serves the configuration it was given. Raises Refused."""
        parent = self._parent
        if parent is None:
            raise Refused(f"shadow instance {self.name} does not run")
        if self._reload is not None:
            self._reload.wait(patience=5, strict=True)
        deadline = time.monotonic() + ANSWER_SECONDS
        pending = set(ports.values())
        while pending or not workers(parent):
            if not parent.alive:
                raise Refused(f"shadow instance {self.name} has ended: {self._last_words()}")
            pending = {port for port in pending if not accepts(port)}
            if time.monotonic() > deadline:
                raise Refused(f"shadow instance {self.name} does not serve: {self._last_words()}")
            time.sleep(POLL_SECONDS)

    @property
    def parent(self) -> Process:
        if self._parent is None or not self._parent.alive:
            raise Refused(f"shadow instance {self.name} does not run")
        return self._parent


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def shadow_limits(parent: Process) -> list[str]:
    """What a shadow may use: it yields to live traffic, and dies before the live instance does. Raises Refused."""
    available = 0
    with contextlib.suppress(OSError, ValueError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) << 10
    if available < LEAST_MEMORY:
        raise Refused(f"only {available >> 20} MiB of memory are free, a duet needs {LEAST_MEMORY >> 20}")
    limits = [
        f"MemoryMax={max(64 << 20, available * 3 // 10)}",
        "MemorySwapMax=0",
        "CPUWeight=50",
        "IOWeight=50",
        "OOMScoreAdjust=500",
        "TasksMax=512",
        "KillMode=mixed",
        "TimeoutStopSec=3",
        f"RuntimeMaxSec={SHADOW_SECONDS}",
    ]
    with contextlib.suppress(OSError):
        match = re.search(r"Max open files\s+(\d+)\s+(\d+)", (PROC / str(parent.pid) / "limits").read_text())
        if match:
            limits.append(f"LimitNOFILE={match[1]}:{match[2]}")
    return limits


def stop_shadows() -> None:
    """Remove the shadow instances and all that they wrote; nothing happens when there are none."""
    shadows = [Shadow(name) for name in INSTANCES]
    if not any(shadow.run.exists() or shadow.data.exists() or shadow.link.is_symlink() for shadow in shadows):
        return
    for shadow in shadows:
        with contextlib.suppress(Refused):
            run("systemctl", "stop", shadow.unit, timeout=15)
    for shadow in shadows:
        shadow.link.unlink(missing_ok=True)
        remove_tree(shadow.data)
        remove_tree(shadow.run)


# --- session ---------------------------------------------------------------------------------------------------------


class Ended(Exception):
    """The session is over: its input ended, it was asked to, or a signal came."""


class Lines:
    """Reads stdin line by line, and wakes up for signals; handlers only leave a note, so nothing is cut short."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._signal = 0
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _note(self, number: int, _frame: object) -> None:
        self._signal = number

    def next(self) -> bytes:
        """Raises Ended at the end of input or when a signal has come, Refused for a line without end."""
        while True:
            if self._signal:
                raise Ended(f"signal {signal.Signals(self._signal).name}")
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                return bytes(line)
            if len(self._buffer) > MAX_LINE:
                raise Refused(f"a line is longer than {MAX_LINE >> 10} KiB")
            ready, _, _ = select.select([0, self._woken], [], [])
            if 0 in ready:
                data = os.read(0, MAX_LINE)
                if not data:
                    raise Ended("end of input")
                self._buffer += data


def parse_command(line: bytes) -> dict[str, Any]:
    """One command of a session, with the fields it needs and no others. Raises Refused."""
    try:
        command = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the line is not JSON: {error}") from None
    if not isinstance(command, dict) or not isinstance(command.get("command"), str):
        raise Refused("expected an object with `command`")
    name = command["command"]
    fields = {"switch": ["configuration"], "assign": ["a", "b"], "renew": [], "status": [], "metrics": [], "end": []}
    if name not in fields:
        raise Refused(f"unknown command {name[:40]!r}")
    if set(command) != {"command", *fields[name]}:
        raise Refused(f"{name}: expected the fields {', '.join(fields[name]) or 'command only'}")
    for field in fields[name]:
        if not isinstance(command[field], str) or not ID.fullmatch(command[field]):
            raise Refused(f"{name}: {field} is not the id of a configuration")
    return command


class Session:
    """What both designs share: the lease, the commands, and the way back."""

    design = ""
    own: tuple[str, ...] = ()

    def __init__(self, lease: int) -> None:
        self.lease = lease
        self._tested: set[tuple[str, str]] = set()

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        name = command["command"]
        if name in self.own:
            require_lease(self.lease)
            with changing():
                return self.change(command)
        if name == "renew":
            renew(self.lease)
            extend_claim()
            return {}
        if name == "status":
            return self.status()
        if name == "metrics":
            return self.metrics()
        raise Refused(f"{name}: not in the design {self.design}")

    def status(self) -> dict[str, Any]:
        parent = require_master()
        left = lease_left()
        pids = {"master": parent.pid, "workers": [worker.pid for worker in workers(parent)]}
        seconds = None if left is None else round(left, 1)
        return {
            "live": shown(live()),
            "confirmed": shown(confirmed()),
            "lease_seconds_left": seconds,
            "nginx_pids": pids,
        }

    def change(self, command: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def metrics(self) -> dict[str, Any]:
        raise NotImplementedError


def require_master() -> Process:
    parent = master()
    if parent is None:
        raise Refused("nginx is not running")
    return parent


class Switchback(Session):
    """Reloads of the live instance."""

    design = "switchback"
    own = ("switch",)

    def __init__(self, lease: int) -> None:
        super().__init__(lease)
        self._figures = Figures()
        self._errors = ErrorLog(lambda: ERROR_LOG)

    def change(self, command: dict[str, Any]) -> dict[str, Any]:
        identity = command["configuration"]
        require_master()
        if not adopted():
            # A reload would read that file, whatever `live` says.
            raise Refused("/etc/nginx/nginx.conf was replaced by hand; nothing is switched")
        require_staged(identity)
        tested = (identity, Tree(configuration_file(identity)).fingerprint())
        if tested not in self._tested:
            problem = test(configuration_file(identity), identity)
            if problem:
                raise Refused(f"nginx refuses {identity}: {problem}")
            self._tested.add(tested)
        return {"configuration": identity, "seconds": round(switch(identity), 3)}

    def metrics(self) -> dict[str, Any]:
        return self._figures.read(require_master()) | self._errors.read()


class Duet(Session):
    """Two shadow instances at once; the live instance is not touched."""

    design = "duet"
    own = ("assign",)

    def __init__(self, lease: int) -> None:
        super().__init__(lease)
        self._shadows = [Shadow(name) for name in INSTANCES]
        self._limits: list[str] | None = None

    def change(self, command: dict[str, Any]) -> dict[str, Any]:
        # Nobody asks the live instance meanwhile: when it has died, the trial ends and the session starts it again.
        require_master()
        started = time.monotonic()
        for shadow in self._shadows:
            require_staged(command[shadow.name])
        if self._limits is None:
            self._limits = shadow_limits(require_master())
        try:
            ports = {shadow.name: shadow.begin(command[shadow.name], self._limits) for shadow in self._shadows}
            for shadow in self._shadows:
                shadow.finish(ports[shadow.name])
        except (Refused, OSError):
            stop_shadows()
            raise
        return {
            "a": command["a"],
            "b": command["b"],
            "ports": {name: {str(port): own for port, own in sorted(mapped.items())} for name, mapped in ports.items()},
            "seconds": round(time.monotonic() - started, 3),
        }

    def metrics(self) -> dict[str, Any]:
        return {
            "instances": {
                shadow.name: shadow.figures.read(shadow.parent) | shadow.errors.read() for shadow in self._shadows
            }
        }


def emit(document: dict[str, Any]) -> None:
    """One line on stdout, at once. Raises OSError when nobody reads it any more."""
    content = (json.dumps(document) + "\n").encode()
    while content:
        content = content[os.write(1, content) :]


def begin_session(session: Session) -> None:
    """Arm the lease first, then see to it that nginx runs the baseline. Raises Refused."""
    if not adopted() or confirmed() is None:
        raise Refused("this host has no confirmed configuration yet; run playbooks/site.yml")
    differences = drift()
    if differences:
        raise Refused("edited by hand since the last confirm: " + ", ".join(differences))
    require_master()
    arm(session.lease)
    restore()


def serve(session: Session, lines: Lines) -> None:
    """Answer commands until the session ends: returns after `end`, raises Ended otherwise."""
    while True:
        line = lines.next()
        name = None
        try:
            command = parse_command(line)
            name = command["command"]
            if name == "end":
                return
            answer = {"ok": True, "command": name, **session.handle(command)}
        except (Refused, OSError) as error:
            log(f"session: {name}: {explain(error)}", syslog.LOG_WARNING)
            answer = {"ok": False, "command": name, "error": explain(error)}
        emit(answer)


def end_session() -> dict[str, Any]:
    """Back to the baseline; the lease stays armed, and tries again, when that cannot be shown."""
    with changing():
        try:
            restore()
        except (Refused, OSError) as error:
            log(f"the baseline could not be restored: {explain(error)}", syslog.LOG_CRIT)
            return {"ok": False, "command": "end", "configuration": shown(confirmed()), "verified": False} | {
                "error": f"the baseline could not be restored: {explain(error)}"
            }
        disarm()
    return {"ok": True, "command": "end", "configuration": shown(confirmed()), "verified": True}


def command_session(design: str, lease: int) -> int:
    lines = Lines()
    lock = Lock("session.lock")
    if not lock.take(1):
        raise Refused("another session is running on this host")
    session: Session = Duet(lease) if design == "duet" else Switchback(lease)
    answer: dict[str, Any] = {}
    try:
        with changing():
            begin_session(session)
        log(f"session: {design}, lease {lease} s, baseline {confirmed()}")
        emit({"ok": True, "command": "ready", "confirmed": shown(confirmed()), "lease_seconds": lease})
        serve(session, lines)
    except Ended as ended:
        log(f"session: {ended}", syslog.LOG_WARNING)
    finally:
        if confirmed() is not None:
            answer = end_session()
        lock.free()
    with contextlib.suppress(OSError):
        emit(answer)
    return 0 if answer.get("ok") else 1


# --- the command line ------------------------------------------------------------------------------------------------


def identity_argument(text: str) -> str:
    if not ID.fullmatch(text):
        raise argparse.ArgumentTypeError("expected the 16 hex digits of a configuration's id")
    return text


def rollback_argument(text: str) -> str:
    return text if text == ORIGINAL else identity_argument(text)


def lease_argument(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 5 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError("expected 5 to 3600 seconds")
    return int(text)


def run_argument(text: str) -> str:
    if not LABEL.fullmatch(text):
        raise argparse.ArgumentTypeError("expected the name of a run: letters, digits, dot, dash and _, at most 64")
    return text


def holder_argument(text: str) -> str:
    if not HOLDER.fullmatch(text):
        raise argparse.ArgumentTypeError("expected letters, digits and . _ @ / -, at most 128")
    return text


class BadUsage(Exception):
    """The command line is none of ours."""


class Parser(argparse.ArgumentParser):
    """Tells bad usage on stderr and in the document; options are written in full."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise BadUsage(message)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Raises BadUsage."""
    parser = Parser(prog="ratchet-host", description="Put nginx configurations live, and take them back.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(dest="command", required=True)
    stage = commands.add_parser("stage", help="place and test configurations, read as JSON from stdin")
    stage.add_argument("--check", action="store_true", help="test only; nothing stays")
    switching = commands.add_parser("switch", help="make one live for the lease")
    switching.add_argument("configuration", type=identity_argument)
    switching.add_argument("--lease", type=lease_argument, default=CONFIRM_LEASE)
    confirm = commands.add_parser("confirm", help="make one live, and the baseline")
    confirm.add_argument("configuration", type=identity_argument)
    rollback = commands.add_parser("rollback", help="make the baseline live, or an earlier configuration the baseline")
    rollback.add_argument("--to", type=rollback_argument, help="an id, or `original` for the distribution's file")
    commands.add_parser("status", help="what runs, what is confirmed, what was edited, who has claimed the host")
    claim = commands.add_parser("claim", help="keep other controllers' runs away for a while")
    claim.add_argument("--holder", type=holder_argument, required=True, help="who: user@machine")
    claim.add_argument("--run", type=run_argument, required=True)
    claim.add_argument("--seconds", type=lease_argument, required=True)
    claim.add_argument(
        "--end", type=run_argument, metavar="RUN", help="take over from this run, which is at an end then"
    )
    release = commands.add_parser("release", help="end a run's claim")
    release.add_argument("--run", type=run_argument, required=True)
    session = commands.add_parser("session", help="the agent's switching, line by line")
    session.add_argument("--design", choices=["switchback", "duet"], default="switchback")
    session.add_argument("--lease", type=lease_argument, required=True, help="seconds")
    commands.add_parser("expire", help="called by the lease's timer")
    commands.add_parser("boot", help="called before nginx at boot")
    return parser.parse_args(arguments)


def dispatch(arguments: argparse.Namespace) -> dict[str, Any]:
    match arguments.command:
        case "stage":
            return command_stage(check=arguments.check)
        case "switch":
            return command_switch(arguments.configuration, arguments.lease)
        case "confirm":
            return command_confirm(arguments.configuration)
        case "rollback":
            return command_rollback(arguments.to)
        case "status":
            return command_status()
        case "claim":
            return command_claim(arguments.holder, arguments.run, arguments.seconds, arguments.end)
        case "release":
            return command_release(arguments.run)
        case "expire":
            return command_expire()
        case _:
            return command_boot()


def prepare() -> None:
    """A known environment, whoever calls."""
    os.environ.clear()
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C")
    os.umask(0o022)
    os.chdir("/")
    syslog.openlog("ratchet-host", syslog.LOG_PID, syslog.LOG_DAEMON)
    if os.geteuid() != 0:
        raise Refused("must run as root: sudo ratchet-host ...")
    RUN.mkdir(mode=0o755, exist_ok=True)
    VAR.mkdir(mode=0o755, exist_ok=True)


def main(arguments: list[str]) -> int:
    try:
        parsed = parse_arguments(arguments)
    except BadUsage as usage:
        with contextlib.suppress(OSError):
            emit({"ok": False, "error": f"bad usage: {usage}"})
        return 2
    failure: dict[str, Any] = {"ok": False}
    if parsed.command == "session":
        failure["command"] = "ready"
    try:
        prepare()
        if parsed.command == "session":
            return command_session(parsed.design, parsed.lease)
        # Half a change is worse than a late end: single commands finish, and they are bounded.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        document = dispatch(parsed)
    except (Refused, OSError) as error:
        log(f"{parsed.command}: {explain(error)}", syslog.LOG_ERR)
        document = failure | {"error": explain(error)}
    except Exception as error:
        import traceback

        log(traceback.format_exc(), syslog.LOG_CRIT)
        document = failure | {"error": f"internal error: {error!r}; see journalctl -t ratchet-host"}
    with contextlib.suppress(OSError):
        emit(document)
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
