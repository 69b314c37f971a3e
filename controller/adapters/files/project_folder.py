"""What `controller init` writes: a folder from which `controller` and plain `ansible-playbook` both work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.documents import is_there, read_text
from controller.adapters.files.experiments import META
from controller.adapters.files.group_vars import group_vars_of_all
from controller.adapters.files.ignored import Rules, add_rules
from controller.adapters.files.private_state import secrets_folder
from controller.model.errors import BadInput, HostFailed
from controller.model.fleet import FLEET_NAME
from controller.model.project import Project, bundle

EXAMPLE_EXPERIMENT = "gzip-level"
SERVERS_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

SETTINGS_HEAD = """\
# The controller's settings for this fleet.
ratchet:
"""
SETTINGS_SERVERS = """\
  # What `controller provision` creates. Leave it out for servers that exist already (then write hosts.yml).
  servers:
    count: 3
    image: debian-12            # or debian-13
    # An ordered preference: the first one that the cloud has in stock is taken.
    prefer:
      - {type: cx23, location: fsn1}
      - {type: cx23, location: nbg1}
      - {type: cpx22, location: fsn1}
    # Networks that may reach SSH. Narrow it to yours.
    ssh_sources: ["0.0.0.0/0", "::/0"]
    labels: {}
"""
SETTINGS_TRIALS = """\
  trials:
    hosts: 0                    # hosts a trial measures on; 0 means all
    lease_seconds: 60           # how long a host may run an unconfirmed configuration before it reverts by itself
    soak_seconds: 10            # how long a proven variant is watched live before it is committed; 0: not
    alpha: 0.05                 # chance of keeping anything that is no gain, over a whole run
"""
NGINX = """\
# Role parameters of this fleet's nginx: the baseline that experiments start from. Every parameter with its default
# and meaning is in the nginx role's meta/argument_specs.yml. What trials keep is written beside this file, into
# zz-kept.yml, which is loaded after it; host_vars and child groups win over both.
nginx_gzip: true
nginx_gzip_comp_level: 6
"""
HOSTS = """\
# The servers of this fleet. Debian 12 or 13, with a user `ratchet` that may use sudo and knows the fleet's key:
#   ssh-keygen -t ed25519 -N '' -f .ratchet/keys/{fleet}
# Host keys go into known_hosts beside this file, one line a server: ADDRESS ssh-ed25519 AAAA...
# (the server's console shows its own: cat /etc/ssh/ssh_host_ed25519_key.pub). No other key is trusted.
all:
  vars:
    ansible_user: ratchet
    ansible_ssh_private_key_file: "{{{{ inventory_dir }}}}/../../.ratchet/keys/{fleet}"
    ansible_ssh_common_args: >-
      -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes
      -o 'UserKnownHostsFile="{{{{ inventory_dir }}}}/known_hosts"'
  hosts: {{}}
  # hosts:
  #   {fleet}-1: {{ansible_host: 192.0.2.1}}
  #   {fleet}-2: {{ansible_host: 192.0.2.2}}
"""
IGNORED = (
    Rules("keys, database and locks", (".ratchet/",), private=True),
    Rules("runs hold the evidence and may be large", ("/runs/", ".ansible/")),
)
LINKS = "links to what is installed: `controller init .` writes them again"
# Linked, not copied, so that an upgrade of Ratchet upgrades them; an operator may put own folders in their place.
LINKED = ("playbooks", "roles")


@dataclass(frozen=True)
class Written:
    """The paths written, what was added to the .gitignore, and a note of what could not be."""

    paths: list[Path]
    ignored: list[str]
    note: str = ""


def write_project(folder: Path, fleet: str, *, static: bool) -> Written:
    """Write what is missing, and only that.

    Raises BadInput when the folder holds other things but no project, when the fleet's name is unfit, when a file is
    where a folder must be, or when a link leads nowhere; HostFailed when it cannot be written.
    """
    # Servers that are created are named after their fleet.
    if not (re.fullmatch(FLEET_NAME, fleet) if static else SERVERS_NAME.fullmatch(fleet)):
        raise BadInput(
            f"{fleet!r} is not a fleet's name", next_step="small letters, digits and dashes, at most 63, such as web-eu"
        )
    _check_folder(folder)
    group_vars_of_all(Project(folder), fleet)
    try:
        paths = list(_write(folder, _files(fleet, static=static)))
        own = folder / ".gitignore"
        is_new = not own.is_symlink() and not own.exists()
        try:
            ignored = add_rules(own, _ignored(folder))
        except HostFailed as unfit:
            return Written(paths, [], str(unfit))
        return Written([*paths, own], []) if is_new else Written(paths, ignored)
    except OSError as error:
        raise HostFailed(
            f"cannot be written: {error.strerror or error}",
            where=str(error.filename or folder),
            next_step="name a folder that this user may write",
        ) from None


def _write(folder: Path, files: dict[str, str]) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    project = Project(folder)
    # Before everything else: the key of a static fleet is made by hand, as hosts.yml says.
    is_new = not project.state.exists()
    secrets_folder(project, "keys")
    if is_new:
        yield project.state
    for name, text in files.items():
        path = folder / name
        if not is_there(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
            yield path
    for name in LINKED:
        path = folder / name
        if not path.is_dir():
            path.unlink(missing_ok=True)
            path.symlink_to(bundle() / name)
            yield path


def _ignored(folder: Path) -> list[Rules]:
    """An operator's own playbooks and roles belong into git: only our links do not."""
    links = tuple(f"/{name}" for name in LINKED if (folder / name).is_symlink() and _is_ours(folder / name))
    return [*IGNORED, Rules(LINKS, links)]


def _is_ours(link: Path) -> bool:
    return link.readlink() == bundle() / link.name


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadInput("is a file", where=str(folder), next_step="name a folder that is new or empty")
    entries = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    ours = "ansible.cfg" in entries and "inventory" in entries
    # A fresh repository is as good as empty.
    if entries - {".git", ".gitignore", ".ratchet", "README.md", "LICENSE"} and not ours:
        raise BadInput(
            "is not empty, and not a project either",
            where=str(folder),
            next_step="name a new or empty folder; a project that exists is only added to, never overwritten",
        )
    if (folder / "inventory").exists() and not (folder / "inventory").is_dir():
        raise BadInput("is a file", where=str(folder / "inventory"), next_step="move it away")


def _files(fleet: str, *, static: bool) -> dict[str, str]:
    """Relative path -> text."""
    shipped = bundle()
    example = shipped / "experiments" / EXAMPLE_EXPERIMENT / META
    group_vars = f"inventory/{fleet}/group_vars/all"
    files = {
        "ansible.cfg": read_text(shipped / "ansible.cfg"),
        f"{group_vars}/ratchet.yml": SETTINGS_HEAD + ("" if static else SETTINGS_SERVERS) + SETTINGS_TRIALS,
        f"{group_vars}/nginx.yml": NGINX,
    }
    if static:
        files[f"inventory/{fleet}/hosts.yml"] = HOSTS.format(fleet=fleet)
    if example.is_file():
        files[f"experiments/{EXAMPLE_EXPERIMENT}/{META}"] = read_text(example)
    return files
