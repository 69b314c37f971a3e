"""Secrets from the environment, a file, an open descriptor or a command; never from an argument, never printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote, quote_plus

from controller.model.errors import BadInput

COMMAND_SECONDS = 30
LARGEST_BYTES = 64 << 10
HIDDEN = "***"
# A shorter secret is in too many words to be hidden wherever it stands; where it stands as one, it is (_MARKED).
SHORTEST_HIDDEN = 4
# Of others' variables, whose name says secret and whose value may be `true`.
SHORTEST_OF_OTHERS = 8

TOKEN = "HCLOUD_TOKEN"  # noqa: S105 - the variable's name
DATABASE = "RATCHET_DATABASE_URL"

# Ours, and where they are: no child has a use for them.
_OURS = re.compile(rf"({TOKEN}|{DATABASE})(_|$)|PGPASSWORD$|DBOS_")
# Others', as far as a name tells. Not SSH_AUTH_SOCK, SSH_ASKPASS, PWD and PATH.
_THEIRS = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|BEARER|WEBHOOK|DATABASE_URL|(API|ACCESS|PRIVATE)_?KEY"
    r"|(^|_)(PAT|AUTH|DSN|KEY|COOKIE)$|_(PASS|PWD)$",
    re.IGNORECASE,
)
# Where Ansible finds a secret: without them it finds none.
_ANSIBLES_PATHS = re.compile(r"ANSIBLE_\w+_FILE$")

# What leads to a secret is none.
_LEADS = ("_FILE", "_FD", "_COMMAND")
# Secrets by what stands before them: a URL's password, an option's, a header's; and private keys, also broken off.
_MARKED = (
    re.compile(r"(://[^\s/:@]*:)\S+(?=@)"),
    re.compile(r"(?i)(\b\w*(?:password|passwd|token|secret)=)[^\s&'\"]+"),
    re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic)\s+)[^\s'\",]+"),
    re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*-----|\Z)"),
)
# As they were read, and as they are written in URLs, JSON and Python.
_known: set[str] = set()


@dataclass(frozen=True)
class Secret:
    """A secret, which is not in its repr, and the name of the variable that it came by."""

    text: str = field(repr=False)
    source: str


def sources(name: str) -> list[str]:
    """The variables that may hold the secret `name`, or say where it is, in the order in which they are looked at."""
    return [name, f"{name}_FILE", f"{name}_FD", f"{name}_COMMAND"]


def read_secret(environment: Mapping[str, str], name: str) -> Secret | None:
    """The secret `name` by the first of its `sources` that is set, without blanks around it; None when none is.

    A descriptor is read to its end and closed, so that no child inherits it; a command's first line counts. Both are
    asked once in a process. Raises BadInput, which names the variable and never what was read.
    """
    secret = _read_secret(environment, name)
    if secret is not None:
        remember(secret.text)
    return secret


def _read_secret(environment: Mapping[str, str], name: str) -> Secret | None:
    plain, file, descriptor, command = sources(name)
    if environment.get(plain):
        return Secret(environment[plain].strip(), plain)
    if environment.get(file):
        return Secret(_of_file(file, environment[file]).strip(), file)
    if environment.get(descriptor):
        return Secret(_of_descriptor(descriptor, environment[descriptor]).strip(), descriptor)
    if environment.get(command):
        return Secret(_of_command(command, environment[command]).strip(), command)
    return None


def is_ours(name: str) -> bool:
    """Whether a variable holds a secret of the controller's own, or says where it is."""
    return bool(_OURS.match(name))


def is_secret(name: str) -> bool:
    """Whether a variable holds a secret, by its name: ours, or one that somebody else has set."""
    return is_ours(name) or bool(_THEIRS.search(name) and not _ANSIBLES_PATHS.match(name))


def masked(text: str, *secrets: str) -> str:
    """The text with each secret hidden: what a library says may quote what it was given."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def remember(*secrets: str) -> None:
    """Have `hidden` hide them."""
    for text in {part for secret in secrets for part in (secret, *secret.splitlines())}:
        if len(text) >= SHORTEST_HIDDEN:
            written = {quote(text), quote(text, safe=""), quote_plus(text), json.dumps(text)[1:-1], repr(text)[1:-1]}
            _known.update(written | {text})


def remember_environment(environment: Mapping[str, str]) -> None:
    """Remember what is secret by its variable's name."""
    for name, value in environment.items():
        if is_secret(name) and not name.endswith(_LEADS):
            own = name in {TOKEN, DATABASE, "PGPASSWORD"}
            remember(*(part for part in [value.strip()] if own or len(part) >= SHORTEST_OF_OTHERS))


def hidden(text: str) -> str:
    """The text for a log: without any secret that this process has come to know, or that is marked as one."""
    text = masked(text, *_known)
    for pattern in _MARKED:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


def end_of(text: str, longest: int = 300) -> str:
    """The end of what somebody said, for a log: hidden first, as half a secret would not be known."""
    return hidden(text).strip()[-longest:]


def _of_file(variable: str, name: str) -> str:
    path = Path(name).expanduser()
    try:
        with path.open("rb") as source:
            return source.read(LARGEST_BYTES).decode("ascii")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not plain text"
        raise BadInput(
            f"the file that {variable} names cannot be read: {reason}", where=str(path), next_step=f"check {variable}"
        ) from None


@cache
def _of_descriptor(variable: str, number: str) -> str:
    step = f"open it for the command: {variable}=3 controller ... 3<FILE"
    if not number.isascii() or not number.isdigit() or len(number) > 4 or number in {"1", "2"}:
        raise BadInput(f"{variable} is not a descriptor to read from: {number[:20]!r}", next_step=step)
    try:
        with os.fdopen(int(number), "rb") as source:
            return source.read(LARGEST_BYTES).decode("ascii")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it does not hold plain text"
        raise BadInput(f"descriptor {number} cannot be read: {reason}", where=variable, next_step=step) from None


@cache
def _of_command(variable: str, command: str) -> str:
    """The command's stderr goes to the operator: it may ask for a password there."""
    try:
        words = shlex.split(command)
        done = subprocess.run(words, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=False, text=True)
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise BadInput(f"the command does not work: {reason}", where=variable, next_step=f"try it: {command}") from None
    if done.returncode != 0:
        raise BadInput(f"the command ended with {done.returncode}", where=variable, next_step=f"try it: {command}")
    return done.stdout.partition("\n")[0]
