"""A fleet's hosts, groups and variables, as `ansible-inventory` tells them: whatever Ansible reads, and nothing else.

One call takes most of a second, so its answer is kept in the process for as long as the files are the same. It is not
kept on the disk: what a vault holds is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller.adapters.ansible.environment import ansible_config, ansible_environment, ignored_patterns
from controller.model.errors import BadInput
from controller.model.project import Project

# An inventory that asks a cloud takes its time.
ANSWER_SECONDS = 120
VARIABLE_FOLDERS = ("group_vars", "host_vars")
# As Ansible's defaults have it.
PASSED_OVER = re.compile(
    r"^\.|^(host_vars|group_vars|vars_plugins)$|(\.(pyc|pyo|swp|bak|rpm|md|txt|rst|orig|cfg|retry)|~)$"
)
VAULT = b"$ANSIBLE_VAULT"
SHOWN_CHARACTERS = 2000


@dataclass(frozen=True)
class Inventory:
    """What Ansible makes of a fleet's folder.

    Attributes:
        hosts: name -> variables with everything that groups, host_vars and vaults add; templates as they are written.
        groups: name -> its hosts, those of its children too.
        sources: the files that name hosts.
        warnings: what Ansible had to say about it.
    """

    folder: Path
    hosts: dict[str, dict[str, Any]]
    groups: dict[str, list[str]]
    sources: tuple[Path, ...]
    warnings: str = ""


def read_inventory(project: Project, fleet: str, *, variable_files: bool = True) -> Inventory:
    """The fleet's inventory; no hosts where no file names any. Raises BadInput with Ansible's own words.

    `variable_files=False` leaves out group_vars and host_vars: for who only needs the names, which a damaged file there
    does not hide.
    """
    folder = project.inventory(fleet)
    sources = tuple(_sources(folder, [re.compile(pattern) for pattern in _patterns(project)]))
    if not sources:
        return Inventory(folder, {}, {}, ())
    environment = ansible_environment(project) | {
        # Half an inventory is worse than none.
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
        "ANSIBLE_INVENTORY_EXPORT": "False",
        # Both would write into the answer.
        "ANSIBLE_VERBOSITY": "0",
        "ANSIBLE_DEBUG": "False",
    }
    if not variable_files:
        environment["ANSIBLE_VARS_ENABLED"] = ""
    state = _digest(project, fleet, environment)
    with _lock:
        if state not in _known:
            answer, warnings = _ask(project, fleet, environment)
            _known[state] = _inventory(folder, answer, sources, warnings)
        return _known[state]


_lock = threading.Lock()
_known: dict[str, Inventory] = {}


def _patterns(project: Project) -> list[str]:
    patterns = ignored_patterns(project)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInput(
                f"`ignore_patterns` has one that is no regular expression: {pattern}: {error}",
                where=str(ansible_config(project)),
                next_step="mend it, then run the command again",
            ) from None
    return patterns


def _sources(folder: Path, ignored: list[re.Pattern[str]]) -> Iterator[Path]:
    for path in _entries(folder):
        if PASSED_OVER.search(path.name) or any(pattern.search(path.name) for pattern in ignored):
            continue
        if path.is_dir():
            yield from _sources(path, ignored)
        else:
            yield path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise BadInput(
            f"cannot be read: {error.strerror or error}", where=str(folder), next_step="mend its permissions"
        ) from None


def _files(folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All below it, through links too, each folder once on the way down."""
    here = folder.resolve()
    for path in _entries(folder) if here not in seen else ():
        if path.is_dir():
            yield from _files(path, seen | {here})
        elif path.is_file():
            yield path


def _read_files(project: Project, fleet: str) -> Iterator[Path]:
    yield ansible_config(project)
    yield from _files(project.inventory(fleet))
    for name in VARIABLE_FOLDERS:
        yield from _files(project.playbooks / name)


def _digest(project: Project, fleet: str, environment: dict[str, str]) -> str:
    """Of all that the answer depends on here. What a dynamic inventory asks elsewhere is asked once in a process."""
    state = hashlib.sha256(repr((str(project.root), fleet, sorted(environment.items()))).encode(errors="replace"))
    for path in _read_files(project, fleet):
        try:
            content = path.read_bytes()
        except OSError as error:
            content = repr(error).encode()
        state.update(repr((str(path), len(content))).encode(errors="replace") + content)
    return state.hexdigest()


def _ask(project: Project, fleet: str, environment: dict[str, str]) -> tuple[dict[str, Any], str]:
    """The document, and what Ansible warned of."""
    words = ["ansible-inventory", "--list", "--inventory", str(project.inventory(fleet))]
    words += ["--playbook-dir", str(project.playbooks)]
    try:
        code, out, err = _run(words, project, environment)
    except subprocess.TimeoutExpired:
        raise _refused(project, fleet, f"ansible-inventory gave no answer within {ANSWER_SECONDS} s") from None
    except OSError as error:
        raise BadInput(
            f"ansible-inventory cannot be run: {error.strerror or error}",
            where=str(error.filename or ""),
            next_step="install ansible-core beside the controller: pip install ansible-core",
        ) from None
    said = err.decode(errors="replace")
    if code == 0:
        try:
            return dict(json.loads(out)), said.strip()
        except (ValueError, TypeError):
            said += "[ERROR]: its answer is no JSON: " + out.decode(errors="replace")[:200]
    raise _refused(project, fleet, said)


def _run(words: list[str], project: Project, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    # In a session of its own: nobody is asked for a password, and Ctrl-C is the controller's.
    with subprocess.Popen(
        words,
        cwd=project.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=ANSWER_SECONDS)
        except BaseException:
            # What a dynamic inventory has started, too.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, err


def _inventory(folder: Path, answer: dict[str, Any], sources: tuple[Path, ...], warnings: str) -> Inventory:
    meta: dict[str, Any] = answer.pop("_meta", {}).get("hostvars", {})
    groups: dict[str, list[str]] = {}

    def members(name: str) -> list[str]:
        if name not in groups:
            group = answer.get(name, {})
            found = list(group.get("hosts", []))
            for child in group.get("children", []):
                found += members(child)
            groups[name] = list(dict.fromkeys(found))
        return groups[name]

    hosts = members("all")
    for name in answer:
        members(name)
    return Inventory(folder, {name: meta.get(name, {}) for name in hosts}, groups, sources, warnings)


def _refused(project: Project, fleet: str, said: str) -> BadInput:
    files = list(_read_files(project, fleet))
    step = (
        f"mend it until `ansible-inventory -i inventory/{fleet} --list` warns of nothing; a file that is no inventory "
        "belongs into another folder, or into ignore_patterns of ansible.cfg's [inventory]"
    )
    if "vault" in said.lower():
        step = "name the file with its password: ANSIBLE_VAULT_PASSWORD_FILE, or vault_password_file in ansible.cfg"
    return BadInput(
        f"Ansible cannot read the inventory: {_words(said)}",
        where=_place(files, said) or str(project.inventory(fleet)),
        next_step=step,
    )


def _words(said: str) -> str:
    """Its complaints, each once, and what a dynamic inventory wrote; not the stack of causes below each."""
    told, _, script = said.partition("Standard error from inventory script:")
    lines = [line for line in told.splitlines() if line.startswith("[")] or told.splitlines()
    if script:
        lines.append(f"the script wrote: {script.partition('[WARNING]')[0].strip()}")
    return "\n  ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))[:SHOWN_CHARACTERS] or "no reason"


def _place(files: list[Path], said: str) -> str:
    """The file that it names, with the line; else the first that is encrypted or damaged, as the case may be."""
    for with_line in (r":(\d+)\b", ""):
        for path in files:
            found = re.search(re.escape(str(path)) + with_line, said)
            if found:
                return f"{path}:{found[1]}" if with_line else str(path)
    for path in files:
        found_damaged = _damaged(path, vault="vault" in said.lower())
        if found_damaged:
            return found_damaged
    return ""


def _damaged(path: Path, *, vault: bool) -> str:
    try:
        raw = path.read_bytes()
    except OSError:
        return str(path)
    if raw.startswith(VAULT):
        return str(path) if vault else ""
    if path.suffix not in {".yml", ".yaml"} and not set(VARIABLE_FOLDERS) & set(path.parts):
        return ""
    try:
        yaml.compose(raw.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        return f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
    except (yaml.YAMLError, ValueError, RecursionError):
        return str(path)
    return ""
