"""The files that a pattern of nginx's `include` names: what glob(3) of the C library finds in the C locale.

Python's own glob differs: it knows neither `[^a]`, nor backslashes, nor classes like `[[:alpha:]]`, and it leaves out
links that lead nowhere, on which nginx fails.
"""

from __future__ import annotations

import os

SPECIAL, BACKSLASH, BRACKET = 1, 2, 4
# Of ASCII, as in the C locale: name -> ranges of bytes.
CLASSES = {
    b"alpha": b"azAZ",
    b"digit": b"09",
    b"alnum": b"azAZ09",
    b"upper": b"AZ",
    b"lower": b"az",
    b"xdigit": b"09afAF",
    b"punct": b"!/:@[`{~",
    b"blank": b"  \t\t",
    b"space": b"  \t\r",
    b"cntrl": b"\0\x1f\x7f\x7f",
    b"graph": b"!~",
    b"print": b" ~",
}


def has_wildcards(pattern: bytes) -> bool:
    """nginx's own test; any other name it takes as it is, backslashes too."""
    return any(char in pattern for char in b"*?[")


def find(pattern: bytes) -> list[bytes]:
    """The paths that an absolute pattern names, in the order in which nginx reads them."""
    return sorted(_find(pattern, folders=False))


def _find(pattern: bytes, *, folders: bool) -> list[bytes]:
    head, _, last = pattern.rpartition(b"/")
    if not last and head:
        # What is no folder is found all the same, as by glob(3).
        return [path + b"/" if os.path.isdir(path) else path for path in _find(head, folders=folders)]  # noqa: PTH112
    head = head or b"/"
    parents = _find(head, folders=True) if _kind(head) & (SPECIAL | BRACKET) else [_unescaped(head)]
    found = [parent.rstrip(b"/") + b"/" + name for parent in parents for name in _names(parent, last)]
    return [path for path in found if os.path.isdir(path)] if folders else found  # noqa: PTH112


def _names(folder: bytes, pattern: bytes) -> list[bytes]:
    if not _kind(pattern):
        return [pattern] if os.path.lexists(os.path.join(folder, pattern)) else []  # noqa: PTH118
    try:
        names = os.listdir(folder)  # noqa: PTH208 - bytes, as they are
    except OSError:
        return []
    return [name for name in (b".", b"..", *names) if fits(pattern, name)]


def _kind(pattern: bytes) -> int:
    """0 for an ordinary name; with what glob(3) takes for a sign, open brackets too."""
    kind = at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char in {b"*", b"?"} or (char == b"]" and kind & BRACKET):
            return SPECIAL
        kind |= {b"\\": BACKSLASH, b"[": BRACKET}.get(char, 0)
        at += 2 if char == b"\\" else 1
    return kind


def _unescaped(name: bytes) -> bytes:
    kept, at = b"", 0
    while at < len(name):
        at += name[at : at + 1] == b"\\" and at + 1 < len(name)
        kept += name[at : at + 1]
        at += 1
    return kept


def fits(pattern: bytes, name: bytes) -> bool:
    """fnmatch(3) with FNM_PERIOD: a dot in front fits nothing but a dot."""
    if pattern[:1] == b"*" and not any(char in pattern[1:] for char in b"*?[\\"):
        # As nearly all are: thousands of files are no wait.
        return name[:1] != b"." and name.endswith(pattern[1:])
    at = place = 0
    # Where the last `*` was, and what it has taken: it takes one byte more whenever the rest does not fit.
    star, taken = -1, 0
    while True:
        hidden = place == 0 and name[:1] == b"."
        if at < len(pattern) and pattern[at : at + 1] == b"*" and not hidden:
            at += 1
            star, taken = at, place
            continue
        if at == len(pattern) and place == len(name):
            return True
        following = _one(pattern, at, name[place], hidden=hidden) if at < len(pattern) and place < len(name) else 0
        if following:
            at, place = following, place + 1
        elif star >= 0 and taken < len(name):
            taken += 1
            at, place = star, taken
        else:
            return False


def _one(pattern: bytes, at: int, byte: int, *, hidden: bool) -> int:
    """Where the pattern goes on after what fits that byte; 0 where it does not fit."""
    char = pattern[at : at + 1]
    if char == b"[":
        return 0 if hidden else _bracket(pattern + b"\0", at + 1, byte)
    if char in {b"?", b"*"}:
        return 0 if hidden or char == b"*" else at + 1
    if char == b"\\":
        at += 1
    return at + 1 if pattern[at : at + 1] == bytes([byte]) else 0


def _bracket(pattern: bytes, start: int, byte: int) -> int:
    """The same for a bracket that was opened before `start`; the pattern ends in a zero byte."""
    at = start
    negated = pattern[at] in b"!^"
    at += negated
    matched = False
    first = at
    while at == first or pattern[at] != ord("]"):
        opened = pattern[at : at + 2]
        if pattern[at] == 0:
            # Never closed: an ordinary character.
            return start if byte == ord("[") else 0
        if opened == b"[:" and (end := _class_end(pattern, at + 2)):
            ranges = CLASSES.get(pattern[at + 2 : end])
            if ranges is None:
                return 0
            matched |= any(low <= byte <= high for low, high in zip(ranges[::2], ranges[1::2], strict=True))
            at = end + 2
            continue
        if opened == b"[=" and pattern[at + 3 : at + 5] == b"=]":
            matched |= pattern[at + 2] == byte
            at += 5
            continue
        low, at = _symbol(pattern, at)
        high = low
        if low > 0 and pattern[at] == ord("-") and pattern[at + 1] not in b"\0]":
            high, at = _symbol(pattern, at + 1)
        if min(low, high) < 0:
            return 0
        matched |= low <= byte <= high
    return at + 1 if matched != negated else 0


def _class_end(pattern: bytes, at: int) -> int:
    """Where the name of a class ends; 0 when it cannot be one."""
    end = pattern.find(b":]", at)
    return end if end >= 0 and all(ord("a") <= char < ord("z") for char in pattern[at:end]) else 0


def _symbol(pattern: bytes, at: int) -> tuple[int, int]:
    """One end of a range, -1 for none; and where the pattern goes on."""
    if pattern[at : at + 2] == b"[.":
        end = pattern.find(b".]", at + 2)
        return (pattern[at + 2], end + 2) if end == at + 3 else (-1, at)
    if pattern[at] == ord("\\"):
        at += 1
    return (pattern[at] or -1, at + 1)
