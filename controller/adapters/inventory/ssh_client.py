"""How OpenSSH would reach a host with the options that Ansible gives it: `ssh -G` tells, and connects to nothing.

Ansible's connections are made by `ssh`, which reads ~/.ssh/config and /etc/ssh/ssh_config too. The controller's own are
made by paramiko, which reads neither, so the client is asked what it would do.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from controller.adapters.inventory.templates import Unfit

ANSWER_SECONDS = 30
# What the controller's own SSH has no counterpart of, and a host may not be reached without.
UNKNOWN = {
    "bindaddress": "BindAddress",
    "bindinterface": "BindInterface",
    "certificatefile": "CertificateFile",
    "pkcs11provider": "PKCS11Provider",
    "proxyusefdpass": "ProxyUseFdpass",
}
# To a jump host: nobody is asked, and who is cut off is given up as soon as a host that is reached directly.
JUMP_OPTIONS = ["-oBatchMode=yes", "-oConnectTimeout=8", "-oServerAliveInterval=10", "-oServerAliveCountMax=3"]
# A host or user that may stand in a shell's command.
PLAIN = re.compile(r"[\w.:@%+-]+", re.ASCII)


@dataclass(frozen=True)
class Route:
    """Where a connection goes, as whom, and what it goes through.

    Attributes:
        known_as: the name that known_hosts has the host under, where HostKeyAlias gives it one.
        key_file: the IdentityFile that somebody has named; empty where none has.
        proxy: a shell's command whose stdin and stdout are the connection; empty for a direct one.
    """

    address: str
    port: int
    user: str
    known_as: str
    key_file: str
    proxy: str


def split(arguments: str) -> list[str]:
    """As Ansible splits `ansible_ssh_common_args`. Raises Unfit."""
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise Unfit(f"cannot be split into words: {error}") from None


def route(words: list[str], address: str, *, folder: Path, environment: Mapping[str, str]) -> Route:
    """The route to `address` with these options of `ssh`, which is started in `folder`. Raises Unfit."""
    said = _ask(words, address, folder, environment)
    for option, name in UNKNOWN.items():
        if said.get(option, ["none"])[0] not in {"none", "no"}:
            raise Unfit(f"uses {name}, which the controller's own SSH does not know")
    target, port, user = said["hostname"][0], int(said["port"][0]), said["user"][0]
    tokens = {"%": "%", "h": target, "p": str(port), "r": user, "n": address, "d": str(Path.home())}
    keys = said.get("identityfile", [])
    return Route(
        address=target,
        port=port,
        user=user,
        known_as=said.get("hostkeyalias", [""])[0],
        key_file="" if keys in ([], _usual_keys()) else _expanded(keys[0], tokens, "IdentityFile"),
        proxy=_proxy(words, said, tokens, folder),
    )


def _ask(words: list[str], address: str, folder: Path, environment: Mapping[str, str]) -> dict[str, list[str]]:
    """Option in small letters -> its values."""
    try:
        done = subprocess.run(
            ["ssh", "-G", *words, "--", address],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_SECONDS,
            check=False,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise Unfit(f"keeps `ssh -G` busy for more than {ANSWER_SECONDS} s") from None
    except OSError as error:
        raise Unfit(f"cannot be tried, since `ssh` cannot be run here: {error.strerror or error}") from None
    except ValueError as error:
        raise Unfit(f"holds what no argument can: {error}") from None
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        option, _, value = line.partition(" ")
        found.setdefault(option.lower(), []).append(value)
    if done.returncode != 0 or not {"hostname", "port", "user"} <= set(found):
        raise Unfit(f"is refused by ssh: {' '.join(done.stderr.split())[:500] or 'without a word'}")
    return found


@cache
def _usual_keys() -> list[str]:
    """Those that ssh tries where nobody names one; the controller has the fleet's own for that."""
    return _ask(["-F", "none"], "x", Path("/"), {"PATH": os.environ.get("PATH", os.defpath)}).get("identityfile", [])


def _proxy(words: list[str], said: dict[str, list[str]], tokens: dict[str, str], folder: Path) -> str:
    command, jump = (said.get(option, ["none"])[0] for option in ("proxycommand", "proxyjump"))
    if command == jump == "none":
        return ""
    for name in ("h", "r"):
        if not PLAIN.fullmatch(tokens[name]):
            raise Unfit(f"would put {tokens[name]!r} into a shell's command")
    if command != "none":
        line = f"exec {_expanded(command, tokens, 'ProxyCommand')}"
    else:
        line = f"exec {_jump(words, jump, tokens)}"
    return f"cd {shlex.quote(str(folder))} && {line}"


def _jump(words: list[str], hops: str, tokens: dict[str, str]) -> str:
    """The command that `ssh` itself makes of `-J`: each hop with the operator's own keys, known hosts and options."""
    *before, last = hops.split(",")
    command = ["ssh", *JUMP_OPTIONS]
    for word, following in pairwise([*words, ""]):
        if word.startswith("-F"):
            command += ["-F", word[2:] or following]
    if before:
        command += ["-J", ",".join(before)]
    return shlex.join([*command, "-W", f"[{tokens['h']}]:{tokens['p']}", "--", f"ssh://{last}"])


def _expanded(text: str, tokens: dict[str, str], option: str) -> str:
    def replace(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise Unfit(f"uses %{found[1]} in {option}, which is not known here")
        return tokens[found[1]]

    return re.sub("%(.)", replace, text)
