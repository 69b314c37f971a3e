"""`nginx -t` without what it does to the host besides.

As root it gives temporary folders and caches to the tested file's `user` at once (uploads to a live nginx of another
user end in 500 then), and creates folders, log files and an empty pid file. Where it would do any of that it runs in a
mount namespace of its own, with overlays over the folders concerned; where that is not allowed, it is put back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import syslog
from pathlib import Path

from ratchet_host import paths, system
from ratchet_host.errors import Refused, explain
from ratchet_host.files import write_atomically
from ratchet_host.language import Directive, plain
from ratchet_host.tree import Tree

FILES = re.compile(r"access_log|error_log|pid")
FOLDERS = re.compile(r"\w+_temp_path|\w+_cache_path")
NO_FILE = re.compile(r"off$|stderr$|syslog:|memory:|/dev/")
# Of configure's options: what nginx takes where a configuration does not say.
COMPILED = re.compile(r"--(prefix|user|pid-path|error-log-path|http-log-path|http-[a-z-]+-temp-path)=(\S+)")
HTTP_DEFAULTS = ("client_body_temp", "proxy_temp", "fastcgi_temp", "uwsgi_temp", "scgi_temp")
NO_NAMESPACE = 77
# As few overlays as the kernel stacks everywhere; more folders than that are put back instead.
MOST_OVERLAYS = 16
# $1: where the changes go; then the folders, "--" and the command. A folder is named by `.` in the options, which its
# path might take apart.
OVERLAYS = f"""
aside=$1; number=0; shift
mount -t tmpfs -o size=16m,mode=0700 ratchet "$aside" >/dev/null 2>&1 || exit {NO_NAMESPACE}
while [ "$1" != -- ]; do
  number=$((number + 1)); up=$aside/$number/up; work=$aside/$number/work
  {{ mkdir -p "$up" "$work" && chown --reference="$1" "$up" && chmod --reference="$1" "$up" && cd "$1" &&
    mount -t overlay -o "lowerdir=.,upperdir=$up,workdir=$work" ratchet . ; }} >/dev/null 2>&1 || exit {NO_NAMESPACE}
  shift
done
shift; cd /; exec "$@"
"""


def compiled_in() -> dict[str, str]:
    """Where nginx keeps things unless told otherwise: option of its configure -> value. Asked once for each binary."""
    known = paths.RUN / "compiled-in.json"
    key = ""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        status = os.stat(paths.NGINX)  # noqa: PTH116
        key = f"{status.st_dev} {status.st_ino} {status.st_mtime_ns} {status.st_size}"
        document = json.loads(known.read_bytes())
        if document["key"] == key and all(isinstance(value, str) for value in document["options"].values()):
            return dict(document["options"])
    _, text = system.run(paths.NGINX, "-V")
    options = dict(COMPILED.findall(text))
    options |= dict.fromkeys(re.findall(r"--without-http_(\w+)_module", text), "")
    with contextlib.suppress(OSError):
        write_atomically(known, json.dumps({"key": key, "options": options}).encode(), 0o600)
    return options


class Written:
    """What `nginx -t` of a tree may create or give away: its files, its folders, and to whom."""

    def __init__(self, directives: list[Directive]) -> None:
        options = compiled_in()
        self._prefix = options.get("prefix", "/usr/local/nginx")
        self.files: set[Path] = set()
        self.folders: set[Path] = set()
        self.owner = options.get("user", "nobody")
        self._collect(directives)
        http = {inner.name for outer in directives if outer.name == "http" for inner in outer.block or []}
        main = {directive.name for directive in directives}
        for option, name, among in (("pid-path", "pid", main), ("http-log-path", "access_log", http)):
            if name not in among:
                self._file(options.get(option, "off"))
        self._file(options.get("error-log-path", "off"))
        for name in HTTP_DEFAULTS:
            if f"{name}_path" not in http:
                self._folder(options.get(f"http-{name.replace('_', '-')}-path", name))
        for directive in directives:
            if directive.name == "user" and directive.arguments:
                self.owner = directive.arguments[0]

    def _collect(self, directives: list[Directive]) -> None:
        for directive in directives:
            if directive.block is not None:
                self._collect(directive.block)
            elif len(directive.words) > 1 and FILES.fullmatch(directive.name):
                self._file(directive.arguments[0])
            elif len(directive.words) > 1 and FOLDERS.fullmatch(directive.name):
                self._folder(directive.arguments[0])
                if any(plain(word) == "use_temp_path=off" for word in directive.words):
                    self._folder(f"{directive.arguments[0]}/temp")

    def _file(self, name: str) -> None:
        if not NO_FILE.match(name) and "$" not in name:
            self._add(self.files, name)

    def _folder(self, name: str) -> None:
        self._add(self.folders, name)

    def _add(self, places: set[Path], name: str) -> None:
        real = Path(os.path.realpath(os.path.join(self._prefix, name)))  # noqa: PTH118
        # What is ours belongs to nobody else.
        if not any(real.is_relative_to(own) for own in (paths.VAR, paths.RUN)):
            places.add(real)

    def changed(self) -> dict[Path, os.stat_result | None]:
        """What a test would change, and how it is now; None for what is not there."""
        found: dict[Path, os.stat_result | None] = {}
        owner = user_id(self.owner)
        for place in self.files | self.folders:
            try:
                status = place.stat()
            except FileNotFoundError:
                # Without the folder that it belongs in nginx gives up.
                if place.parent.is_dir() or place.parent in self.folders:
                    found[place] = None
            except OSError:
                continue
            else:
                if place in self.folders and (status.st_uid != owner or status.st_mode & stat.S_IRWXU != stat.S_IRWXU):
                    found[place] = status
        return found


def user_id(name: str) -> int | None:
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwnam(name).pw_uid
    return None


def run_test(link: Path, file: Path) -> tuple[int, str]:
    """`nginx -t -q` of a file by the name `link`: exit code and output. Raises Refused when it does not end."""
    words = (paths.NGINX, "-t", "-q", "-c", str(link))
    directives: list[Directive] = []
    # What we cannot read, nginx hardly can: it says so, and has done little until then.
    with contextlib.suppress(Refused):
        directives = Tree(file).directives
    before = Written(directives).changed()
    if not before:
        return system.run(*words)
    parents = topmost({place.parent for place in before if place.parent.is_dir()})
    if len(parents) <= MOST_OVERLAYS and Path("/") not in parents:
        code, text = system.run(*alone(parents, words))
        if code != NO_NAMESPACE and not text.startswith("unshare:"):
            return code, text
    try:
        return system.run(*words)
    finally:
        put_back(before)


def topmost(folders: set[Path]) -> list[Path]:
    """Those that are below none of the others."""
    return sorted(folder for folder in folders if not any(parent in folders for parent in folder.parents))


def alone(folders: list[Path], words: tuple[str, ...]) -> tuple[str, ...]:
    """A command that runs another where changes below `folders` reach nobody, and are gone with it."""
    aside = paths.RUN / "aside"
    aside.mkdir(mode=0o700, exist_ok=True)
    # The one that it is in comes last: its overlay hides it from those that follow.
    folders = sorted(folders, key=aside.is_relative_to)
    shell = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", OVERLAYS, "sh", str(aside))
    return (*shell, *map(str, folders), "--", *words)


def put_back(before: dict[Path, os.stat_result | None]) -> None:
    """Undo what a test did to these places; what anybody has begun to use since stays."""
    for place, status in sorted(before.items(), reverse=True):
        try:
            now = place.lstat()
            if status is None and stat.S_ISDIR(now.st_mode):
                place.rmdir()
            elif status is None and stat.S_ISREG(now.st_mode) and now.st_size == 0:
                place.unlink()
            elif status is not None and (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):
                os.chown(place, status.st_uid, status.st_gid)
                place.chmod(stat.S_IMODE(status.st_mode))
        except FileNotFoundError:
            continue
        except OSError as error:
            system.log(
                f"nginx -t has changed {place}, which could not be put back: {explain(error)}", syslog.LOG_WARNING
            )
