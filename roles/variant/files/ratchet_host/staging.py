"""`stage`: places configurations and has nginx test them; nothing goes live."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ratchet_host import paths
from ratchet_host.claim import Fence
from ratchet_host.configurations import confirmed, edited, live, shown, staged
from ratchet_host.drift import drift
from ratchet_host.edits import keep_edited, put_edits_aside
from ratchet_host.errors import Refused
from ratchet_host.files import identify, remove_tree, short_diff, sync_directory, write_atomically
from ratchet_host.instance import marks_in_use
from ratchet_host.locks import Lock, changing
from ratchet_host.marks import DIRECTIVE, LIVE, mark_in, new_mark, split_mark, with_mark
from ratchet_host.nginx import test
from ratchet_host.paths import LABEL, configuration_file, pristine_file, ratchet
from ratchet_host.restoring import keep_original
from ratchet_host.shadow_places import stop_shadows
from ratchet_host.sockets import sockets_of
from ratchet_host.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_INPUT = 8 << 20
MAX_CONFIGURATION = 1 << 20
# What unused configurations may take of the disk, however many are kept.
KEEP_BYTES = 32 << 20
MAX_CONFIGURATIONS = 64
MAX_DIFF_LINES = 400


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


def live_text() -> bytes:
    try:
        return split_mark((paths.ETC / "nginx.conf").read_bytes())[1]
    except OSError:
        return b""


def stage_one(content: bytes, *, check: bool) -> dict[str, Any]:
    """Place one configuration and test it; returns its part of the answer. A bad one does not stay."""
    identity = identify(content)
    path = configuration_file(identity)
    present = mark_in(path) != 0 and not edited(identity)
    if present:
        problem, sockets = test(path, identity), sockets_of(path)
    elif check:
        folder = paths.RUN / f"check-{identity}"
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            write_atomically(folder / "nginx.conf", with_mark(content, LIVE[0]))
            problem, sockets = test(folder / "nginx.conf", identity), sockets_of(folder / "nginx.conf")
        finally:
            remove_tree(folder)
    else:
        # An edit by hand of what is live stays until somebody confirms; confirm then keeps a copy of it.
        protected = identity in {live(), confirmed()} and path.is_file()
        candidate = ratchet() / f".new-{identity}" / "nginx.conf"
        candidate.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(candidate, with_mark(content, new_mark(marks_in_use())), like=paths.ETC / "nginx.conf")
            problem, sockets = test(candidate, identity), sockets_of(candidate)
            if not problem and protected:
                write_atomically(pristine_file(identity), content, like=path)
            elif not problem:
                place(candidate.parent, identity)
        finally:
            remove_tree(candidate.parent)
    if present and not check:
        os.utime(path.parent)
    if DIRECTIVE in problem:
        problem += f" (Ratchet sets {DIRECTIVE}, to see which configuration a worker runs; take yours out)"
    return {
        "id": identity,
        "ok": not problem,
        "changed": not present and not problem,
        "error": problem,
        "sockets": sockets,
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
    """Remove the longest-unused configurations beyond `keep` or KEEP_BYTES; never what is live, confirmed or wanted."""
    put_edits_aside()
    spared = wanted | {live(), confirmed()}
    total = 0
    for number, identity in enumerate([identity for identity in staged() if identity not in spared], 1):
        folder = ratchet() / identity
        total += sum(file.lstat().st_size for file in folder.rglob("*"))
        if number > keep or total > KEEP_BYTES:
            remove_tree(folder)


def command_stage(*, check: bool, fence: Fence) -> dict[str, Any]:
    texts, keep = parse_configurations(read_input(MAX_INPUT))
    if not (paths.ETC / "nginx.conf").exists():
        raise Refused("/etc/nginx/nginx.conf does not exist: install nginx first (playbooks/site.yml)")
    with changing():
        if not check:
            fence.check()
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
