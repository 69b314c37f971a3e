"""An operator's .gitignore: what is missing is added to it, and nothing else in it is touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from controller.adapters.files.atomic import write_atomically
from controller.model.errors import HostFailed

UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Rules:
    """Paths that git is to leave out, and why. `private`: also where the operator lets them in (`!path`)."""

    why: str
    paths: tuple[str, ...]
    private: bool = False


def add_rules(path: Path, wanted: list[Rules]) -> list[str]:
    """Append to a .gitignore what it lacks, in its own line ends; returns the paths added.

    Raises HostFailed when it is nothing that may be written; it is unchanged then.
    """
    if path.is_symlink():
        raise _unfit("is a link, and git follows none there: its rules are not in force", path, wanted)
    if path.exists() and not path.is_file():
        raise _unfit("is no file", path, wanted)
    try:
        before = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise _unfit(f"cannot be read: {error.strerror}", path, wanted) from None
    missing = [(rules, [one for one in rules.paths if _lacks(before, one, rules)]) for rules in wanted]
    added = [one for _, paths in missing for one in paths]
    if not added:
        return []
    if path.exists() and not os.access(path, os.W_OK):
        raise _unfit("is read-only", path, wanted)
    end = "\r\n" if before.rpartition(b"\n")[0].endswith(b"\r") else "\n"
    text = "".join(f"# {rules.why}{end}" + "".join(f"{one}{end}" for one in paths) for rules, paths in missing if paths)
    if before and not before.endswith(b"\n"):
        text = end + text
    try:
        write_atomically(path, before + text.encode())
    except HostFailed as error:
        raise _unfit(error.what, path, wanted) from None
    return added


def _lacks(content: bytes, path: str, rules: Rules) -> bool:
    """Whether no line names the path; the last one that does counts. What is wider (`*`) is not looked for."""
    name = path.strip("/").encode()
    names = {before + name + after for before in (b"", b"/") for after in (b"", b"/")}
    lines = (line.rstrip() for line in content.removeprefix(UTF8_MARK).splitlines())
    verdicts = [line.startswith(b"!") for line in lines if line.removeprefix(b"!") in names]
    return not verdicts or (verdicts[-1] and rules.private)


def _unfit(what: str, path: Path, wanted: list[Rules]) -> HostFailed:
    lines = ", ".join(one for rules in wanted for one in rules.paths)
    return HostFailed(what, where=str(path), next_step=f"see to it that git ignores {lines}")
